//! The opening handshake of a server: a request head to what the client offers, or to a refusal that explains
//! itself. Chooses no subprotocol. Spec: RFC 6455 §4.2, WIRE §1, SEC-7.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;

use super::deflate;
use super::origin::OriginPolicy;
use super::token::{OWS, is_token};

/// What decides about a request.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeOptions<'a> {
    /// Which pages may connect.
    pub origin: OriginPolicy<'a>,
    /// What is made of compression offers.
    pub deflate: &'a deflate::Settings,
}

/// A valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHandshake {
    /// The offered subprotocols in the client's order, no two equal. Empty when it sent no such header.
    pub protocols: Vec<Box<str>>,
    /// Where the page is from that opens the connection; it was accepted.
    pub origin: Option<Box<str>>,
    /// What came of the compression offers.
    pub deflate: Option<deflate::Params>,
    accept_key: String,
}

/// An answer that is not 101, with a sentence that a developer can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, as a number.
    pub status: StatusCode,
    /// What the status needs beside it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Why, as plain text.
    pub body: String,
}

/// The most subprotocols that one request may offer.
pub const PROTOCOLS_MAX: usize = 64;

/// Checks a request and reads its offers. The path, and the choice among the subprotocols, are the caller's.
pub fn parse_request<B>(
    request: &Request<B>,
    options: &HandshakeOptions<'_>,
) -> Result<ClientHandshake, Refused> {
    let headers = request.headers();
    check_http(request)?;
    check_upgrade(headers)?;
    let accept_key = accept_key(headers)?;
    let origins = headers.get_all(header::ORIGIN).iter().map(|value| value.to_str().ok());
    let origin = options.origin.check(origins).map_err(|refusal| Refused::forbidden(refusal.to_string()))?;
    let protocols = protocols(headers)?;
    // A header that is not text holds no offer that could be accepted.
    let offers =
        headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let deflate = deflate::negotiate(offers, options.deflate);
    Ok(ClientHandshake { protocols, origin: origin.map(Into::into), deflate, accept_key })
}

impl ClientHandshake {
    /// The 101. `protocol` is one of [`Self::protocols`], any other is left out: a client must fail the
    /// connection over a token that it did not offer (SEC-7). `deflate` is [`Self::deflate`], or `None` to
    /// decline after all.
    #[must_use]
    pub fn response(&self, protocol: Option<&str>, deflate: Option<&deflate::Params>) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let offered = self.protocols.iter().find(|offered| Some(&***offered) == protocol);
        for (name, value) in [
            (header::SEC_WEBSOCKET_ACCEPT, Some(self.accept_key.clone())),
            (header::SEC_WEBSOCKET_PROTOCOL, offered.map(ToString::to_string)),
            (header::SEC_WEBSOCKET_EXTENSIONS, deflate.map(ToString::to_string)),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn check_http<B>(request: &Request<B>) -> Result<(), Refused> {
    if request.method() != Method::GET {
        let mut refused =
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with a GET request");
        refused.headers.push((header::ALLOW, HeaderValue::from_static("GET")));
        return Err(refused);
    }
    if request.version() != Version::HTTP_11 {
        return Err(Refused::bad_request("a WebSocket begins with an HTTP/1.1 request (RFC 6455 §4.2.1)"));
    }
    let headers = request.headers();
    let host = only(headers, header::HOST).filter(|host| !host.is_empty());
    if host.is_none_or(|host| host.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b',')) {
        return Err(Refused::bad_request("the request needs exactly one Host header"));
    }
    let has_length = headers.get_all(header::CONTENT_LENGTH).iter().any(|value| value.as_bytes() != b"0");
    if has_length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refused::bad_request("a WebSocket request has no body"));
    }
    Ok(())
}

fn check_upgrade(headers: &HeaderMap) -> Result<(), Refused> {
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Err(Refused::upgrade_required(
            "this is a WebSocket endpoint: connect with a WebSocket client, for example \
             new WebSocket(\"ws://HOST/PATH\") in a browser",
        ));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(Refused::bad_request(
            "the Connection header lacks \"Upgrade\"; a proxy on the way must pass Connection and Upgrade on",
        ));
    }
    if only(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refused::upgrade_required("Sec-WebSocket-Version must be 13 (RFC 6455)"));
    }
    Ok(())
}

fn accept_key(headers: &HeaderMap) -> Result<String, Refused> {
    let key = only(headers, header::SEC_WEBSOCKET_KEY);
    let is_nonce = |key: &&str| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    let key = key.filter(is_nonce).ok_or_else(|| {
        Refused::bad_request("the request needs exactly one Sec-WebSocket-Key, the base64 of 16 bytes")
    })?;
    Ok(derive_accept_key(key.as_bytes()))
}

/// RFC 6455 §4.1 item 10: tokens, no two equal, perhaps over several lines (§11.3.4).
fn protocols(headers: &HeaderMap) -> Result<Vec<Box<str>>, Refused> {
    let mut protocols = Vec::<Box<str>>::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let malformed = || Refused::bad_request("Sec-WebSocket-Protocol is a list of tokens");
        for token in value.to_str().map_err(|_| malformed())?.split(',') {
            match token.trim_matches(OWS) {
                // RFC 9110 §5.6.1: empty elements are ignored.
                "" => {}
                token if !is_token(token) => return Err(malformed()),
                token if protocols.iter().any(|known| **known == *token) => {
                    return Err(Refused::bad_request("Sec-WebSocket-Protocol offers the same token twice"));
                }
                _ if protocols.len() == PROTOCOLS_MAX => {
                    return Err(Refused::bad_request("Sec-WebSocket-Protocol offers too many tokens"));
                }
                token => protocols.push(token.into()),
            }
        }
    }
    if protocols.is_empty() && headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Err(Refused::bad_request("Sec-WebSocket-Protocol is there, but names no protocol"));
    }
    Ok(protocols)
}

/// The value of a header that must come once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim_matches(OWS).eq_ignore_ascii_case(token))
}

impl Refused {
    /// Any status. The sentence begins small and has no full stop.
    #[must_use]
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: sentence.into() }
    }

    /// 400.
    #[must_use]
    pub fn bad_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// 403.
    #[must_use]
    pub fn forbidden(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, sentence)
    }

    /// 404, with the paths that there are.
    #[must_use]
    pub fn not_found<P: AsRef<str>>(paths: &[P]) -> Self {
        let paths = paths.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        Self::new(
            StatusCode::NOT_FOUND,
            format!("no WebSocket here; the paths of this listener are: {paths}"),
        )
    }

    /// 426, with the version that we speak (RFC 6455 §4.2.2).
    #[must_use]
    pub fn upgrade_required(sentence: impl Into<String>) -> Self {
        let mut refused = Self::new(StatusCode::UPGRADE_REQUIRED, sentence);
        refused.headers = vec![
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        ];
        refused
    }

    /// 503, with the time to wait in whole seconds, at least one.
    #[must_use]
    pub fn overloaded(sentence: impl Into<String>, retry_after: Duration) -> Self {
        let mut refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence);
        refused.headers.push((header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1))));
        refused
    }

    /// The answer: the sentence is its body, in plain text.
    #[must_use]
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(format!("{}\n", self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.extend(self.headers);
        response
    }
}
