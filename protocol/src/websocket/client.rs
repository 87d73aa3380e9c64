//! The opening handshake of a client: the bytes of the request, and the check of the answer.
//! Opens no socket and draws no random numbers. Spec: RFC 6455 §4.1.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
pub use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::client::generate_request;
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;

use super::deflate;

/// The longest head of a response that is waited for.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    key: String,
    protocols: Vec<Box<str>>,
    deflate: deflate::Settings,
    request: Request<()>,
}

/// What the server agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHandshake {
    /// One of the offered subprotocols.
    pub protocol: Option<Box<str>>,
    /// What came of the compression offer.
    pub deflate: Option<deflate::Params>,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Host, path, key or a header cannot stand in a request.
    #[error("the request cannot be written: a part of it is not valid in HTTP")]
    BadRequest,
    /// Another status than 101; the body may say why.
    #[error("the server refused with status {0}")]
    Refused(StatusCode),
    /// Not HTTP/1.1, or longer than [`HEAD_BYTES_MAX`].
    #[error("the answer is not a response head of HTTP/1.1")]
    Malformed,
    /// `Upgrade` or `Connection` does not say so.
    #[error("the server did not upgrade the connection (RFC 6455 §4.1)")]
    NotUpgraded,
    /// It answers another request.
    #[error("Sec-WebSocket-Accept does not fit the key (RFC 6455 §4.1)")]
    WrongAcceptKey,
    /// RFC 6455 §4.1: only an offered one may be chosen.
    #[error("the server chose a subprotocol that was not offered")]
    WrongProtocol,
    /// The compression agreed to was not offered.
    #[error(transparent)]
    Extension(#[from] deflate::NegotiationError),
}

impl ClientRequest {
    /// A request for `path_and_query` at `host` (`name[:port]`). `key` is the base64 of 16 random bytes, as
    /// [`generate_key`] makes.
    pub fn new(host: &str, path_and_query: &str, key: String) -> Result<Self, HandshakeError> {
        let request = Request::get(path_and_query)
            .header(header::HOST, host)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .body(())
            .map_err(|_| HandshakeError::BadRequest)?;
        let deflate = deflate::Settings { enabled: false, ..deflate::Settings::default() };
        Ok(Self { key, protocols: Vec::new(), deflate, request })
    }

    /// Offers subprotocols, the preferred one first.
    pub fn with_protocols(mut self, protocols: &[&str]) -> Result<Self, HandshakeError> {
        self.protocols = protocols.iter().map(|&protocol| protocol.into()).collect();
        self.with_header(header::SEC_WEBSOCKET_PROTOCOL, &protocols.join(", "))
    }

    /// Offers compression.
    pub fn with_deflate(mut self, settings: deflate::Settings) -> Result<Self, HandshakeError> {
        self.deflate = settings;
        match deflate::offer(&settings) {
            Some(offer) => self.with_header(header::SEC_WEBSOCKET_EXTENSIONS, &offer),
            None => Ok(self),
        }
    }

    /// Adds a header: credentials, an origin.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Result<Self, HandshakeError> {
        let value = HeaderValue::from_str(value).map_err(|_| HandshakeError::BadRequest)?;
        self.request.headers_mut().append(name, value);
        Ok(self)
    }

    /// The bytes to send.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HandshakeError> {
        let request = generate_request(self.request.clone());
        request.map(|(bytes, _)| bytes).map_err(|_| HandshakeError::BadRequest)
    }

    /// Reads the answer at the front of `bytes`: what was agreed on and the length of the head, behind which
    /// the first frame begins. `None` when more is needed.
    pub fn read_response(&self, bytes: &[u8]) -> Result<Option<(usize, ServerHandshake)>, HandshakeError> {
        let parsed = Response::<Option<Vec<u8>>>::try_parse(bytes).map_err(|_| HandshakeError::Malformed)?;
        match parsed {
            Some((len, response)) => Ok(Some((len, self.check(&response)?))),
            None if bytes.len() > HEAD_BYTES_MAX => Err(HandshakeError::Malformed),
            None => Ok(None),
        }
    }

    fn check<B>(&self, response: &Response<B>) -> Result<ServerHandshake, HandshakeError> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(HandshakeError::Refused(response.status()));
        }
        let headers = response.headers();
        let mut upgrade = texts(headers, header::UPGRADE).flatten();
        let is_upgrade = upgrade.any(|text| text.eq_ignore_ascii_case("websocket"));
        let mut connection = texts(headers, header::CONNECTION).flatten().flat_map(|text| text.split(','));
        if !is_upgrade || !connection.any(|token| token.trim().eq_ignore_ascii_case("upgrade")) {
            return Err(HandshakeError::NotUpgraded);
        }
        let accept_key = derive_accept_key(self.key.as_bytes());
        if !texts(headers, header::SEC_WEBSOCKET_ACCEPT).eq([Some(accept_key.as_str())]) {
            return Err(HandshakeError::WrongAcceptKey);
        }
        let mut chosen = texts(headers, header::SEC_WEBSOCKET_PROTOCOL);
        let protocol = match (chosen.next(), chosen.next()) {
            (None, _) => None,
            (Some(Some(protocol)), None) if self.protocols.iter().any(|offered| **offered == *protocol) => {
                Some(protocol.into())
            }
            _ => return Err(HandshakeError::WrongProtocol),
        };
        let extensions = texts(headers, header::SEC_WEBSOCKET_EXTENSIONS);
        let deflate = deflate::accept_response(extensions.map(|text| text.unwrap_or("?")), &self.deflate)?;
        Ok(ServerHandshake { protocol, deflate })
    }
}

/// The values of a header; `None` for one that is not text.
fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    headers.get_all(name).iter().map(|value| value.to_str().ok())
}
