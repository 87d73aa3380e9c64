//! One HTTP request that becomes a WebSocket, or a refusal that explains itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tidegate_protocol::session::Session;
use tidegate_protocol::subprotocol::{self, Choice, Opening, Subprotocol};
use tidegate_protocol::websocket::handshake::{self, HandshakeOptions, Refused};
use tidegate_protocol::websocket::origin::OriginPolicy;
use tidegate_protocol::websocket::{Role, deflate};
use tokio::net::TcpStream;
use tracing::{debug, info};

use super::admission::{Admitted, Excess};
use super::{ListenerSettings, Shared};
use crate::auth::Peer;
use crate::connection::Opened;
use crate::metrics::HandshakeRefusal;

/// The state of one socket before it is a WebSocket.
pub(super) struct Handshake {
    listener: Arc<ListenerSettings>,
    shared: Arc<Shared>,
    address: SocketAddr,
    admitted: Mutex<Admitted>,
    /// Set by the request that is granted.
    granted: Mutex<Option<Granted>>,
}

struct Granted {
    on_upgrade: OnUpgrade,
    session: Box<dyn Session>,
    subprotocol: Subprotocol,
    deflate: Option<deflate::Params>,
    peer: Peer,
}

/// Memory that context takeover costs a connection: zlib's compressor and its inflater.
const TAKEOVER_DEFLATER_BYTES: usize = 300 * 1024;
const TAKEOVER_INFLATER_BYTES: usize = 48 * 1024;

/// Headers of one request (SEC-5).
const HEADERS_MAX: usize = 100;

/// The least that hyper takes as a buffer for the head of a request.
const HEAD_BYTES_MIN: usize = 8192;

/// What a refused client is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Set by proxies: the client is somebody else than the peer.
const FORWARDING: [HeaderName; 3] =
    [header::FORWARDED, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];

impl Handshake {
    pub(super) fn new(
        listener: Arc<ListenerSettings>,
        shared: Arc<Shared>,
        address: SocketAddr,
        admitted: Admitted,
    ) -> Self {
        Self { listener, shared, address, admitted: Mutex::new(admitted), granted: Mutex::new(None) }
    }

    /// Serves the request, then hands the socket to a task of its own, so that what HTTP needed is freed.
    /// TCP: bytes arrive, and in order [MQTT-4.2.0-1].
    pub(super) async fn run(self, stream: TcpStream) {
        let this = Arc::new(self);
        let timeout = this.shared.settings.handshake_timeout;
        // SEC-6: one deadline for all of it, which no dribble extends.
        match tokio::time::timeout(timeout, Box::pin(Arc::clone(&this).serve(stream))).await {
            Ok(Some(opened)) => {
                if let Some(this) = Arc::into_inner(this) {
                    this.shared.spawn(opened, this.admitted.into_inner().place);
                }
            }
            Ok(None) => {}
            Err(_late) => {
                this.shared.broker.metrics().handshakes_refused.inc(HandshakeRefusal::Timeout);
                debug!(peer = %this.address, "no WebSocket within websocket.handshake_timeout");
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) -> Option<Opened> {
        let settings = &self.shared.settings;
        let this = &self;
        let service = service_fn(|request| async move { Ok::<_, Infallible>(this.answer(request)) });
        let connection = http1::Builder::new()
            // `run` has the one deadline, which also says what is counted.
            .header_read_timeout(None)
            .max_headers(HEADERS_MAX)
            .max_buf_size(settings.header_bytes_max.max(HEAD_BYTES_MIN))
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            let is_too_large = error.is_parse_too_large();
            let why =
                if is_too_large { HandshakeRefusal::HeadTooLarge } else { HandshakeRefusal::BadRequest };
            self.shared.broker.metrics().handshakes_refused.inc(why);
            debug!(peer = %self.address, %error, "the request is not HTTP");
            return None;
        }
        let granted = self.granted.lock().take()?;
        let upgraded = granted.on_upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        Some(Opened {
            socket: parts.io.into_inner(),
            leftover: parts.read_buf,
            session: granted.session,
            family: granted.subprotocol.family(),
            deflating: granted.deflate.and_then(|params| params.deflating(Role::Server, &settings.deflate)),
            takeover: granted
                .deflate
                .and_then(|params| params.takeover_deflater(Role::Server, &settings.deflate)),
            deflate: granted.deflate,
            peer: granted.peer,
        })
    }

    fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.grant(request) {
            Ok(response) => response.map(|()| Full::default()),
            Err(refused) => {
                self.shared.broker.metrics().handshakes_refused.inc(self.why(refused.status));
                info!(
                    peer = %self.address,
                    status = refused.status.as_u16(),
                    reason = %refused.body.escape_debug(),
                    "handshake refused"
                );
                let mut response = refused.into_response().map(|body| Full::new(Bytes::from(body)));
                response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
                response
            }
        }
    }

    fn grant(&self, mut request: Request<Incoming>) -> Result<Response<()>, Refused> {
        self.check_admission()?;
        if !self.listener.paths.iter().any(|path| path == request.uri().path()) {
            return Err(Refused::not_found(&self.listener.paths));
        }
        let peer = Peer { ip: self.address.ip(), is_forwarded: is_forwarded(request.headers()) };
        let settings = &self.shared.settings;
        let compression = self.compression();
        let options = HandshakeOptions {
            origin: OriginPolicy {
                origins: &settings.origins,
                require_origin: settings.require_origin,
                is_anonymous_loopback: self.shared.broker.authenticator().trusts_only_as_local(&peer),
            },
            deflate: &compression,
        };
        let offer = handshake::parse_request(&request, &options)?;
        let query = request.uri().query();
        let wanted = query.and_then(protocol_parameter);
        let choice = subprotocol::negotiate(&offer.protocols, &self.listener.negotiation, wanted.as_deref())
            .map_err(|error| Refused::bad_request(error.to_string()))?;
        let session = self.open(&choice, query)?;
        self.account_takeover(offer.deflate.as_ref());
        let response = offer.response(choice.token, offer.deflate.as_ref());
        *self.granted.lock() = Some(Granted {
            on_upgrade: hyper::upgrade::on(&mut request),
            session,
            subprotocol: choice.subprotocol,
            deflate: offer.deflate,
            peer,
        });
        Ok(response)
    }

    /// The word that a refusal is counted under.
    fn why(&self, status: StatusCode) -> HandshakeRefusal {
        match status.as_u16() {
            401 => HandshakeRefusal::Unauthorized,
            403 => HandshakeRefusal::Origin,
            404 => HandshakeRefusal::Path,
            405 | 426 => HandshakeRefusal::NotWebSocket,
            503 => match self.admitted.lock().excess {
                Some(Excess::Connections(_)) => HandshakeRefusal::Connections,
                Some(Excess::PerIp(_)) => HandshakeRefusal::ConnectionsPerIp,
                Some(Excess::Rate(_)) => HandshakeRefusal::Rate,
                None => HandshakeRefusal::Overloaded,
            },
            _ => HandshakeRefusal::BadRequest,
        }
    }

    fn check_admission(&self) -> Result<(), Refused> {
        let overloaded = |sentence: String| Err(Refused::overloaded(sentence, RETRY_AFTER));
        match self.admitted.lock().excess {
            Some(Excess::Connections(limit)) => overloaded(format!("all {limit} connections are taken")),
            Some(Excess::PerIp(limit)) => overloaded(format!("your address has all its {limit} connections")),
            Some(Excess::Rate(limit)) => overloaded(format!("more than {limit} handshakes per second")),
            None if self.shared.broker.shared().is_full() => {
                overloaded("the memory for queued messages is used up".to_owned())
            }
            None => Ok(()),
        }
    }

    fn open(&self, choice: &Choice, query: Option<&str>) -> Result<Box<dyn Session>, Refused> {
        let opening = Opening { query, bearer: choice.bearer.clone() };
        let now = tokio::time::Instant::now().into_std();
        choice.subprotocol.open(&opening, &self.shared.settings.sessions, now).map_err(Refused::bad_request)
    }

    /// The operator's settings; without context takeover when its memory is used up.
    fn compression(&self) -> deflate::Settings {
        let mut compression = self.shared.settings.deflate;
        let mut bytes = 0;
        if !compression.server_no_context_takeover {
            bytes += TAKEOVER_DEFLATER_BYTES;
        }
        if !compression.client_no_context_takeover {
            bytes += TAKEOVER_INFLATER_BYTES;
        }
        if bytes > 0 {
            let spent = self.shared.takeover.spend(bytes);
            if spent.is_none() {
                compression.server_no_context_takeover = true;
                compression.client_no_context_takeover = true;
            }
            self.admitted.lock().place.takeover = spent.map(Box::new);
        }
        compression
    }

    /// Gives the memory back if nothing is taken over after all.
    fn account_takeover(&self, params: Option<&deflate::Params>) {
        let takes_over =
            params.is_some_and(|p| !(p.server_no_context_takeover && p.client_no_context_takeover));
        if !takes_over {
            self.admitted.lock().place.takeover = None;
        }
    }
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDING.iter().any(|name| headers.contains_key(name))
}

/// `protocol=` in the query, for tools that cannot set the header. A token needs no percent-encoding.
fn protocol_parameter(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("protocol="))?;
    Some(value.to_owned())
}
