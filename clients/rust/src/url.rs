//! The URL of a broker to what a connection needs of it. Opens nothing.

use http::Uri;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `name:port`, to be resolved.
    pub(crate) address: String,
    /// For the `Host` header, as it stands in the URL.
    pub(crate) host: String,
    pub(crate) path_and_query: String,
}

/// Why a URL is not one that this client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No absolute URL.
    #[error("not a URL of the form ws://host[:port][/path]")]
    Malformed,
    /// `wss:`.
    #[error("wss: this client has no TLS yet; put it behind a TLS proxy or use ws: on a trusted network")]
    Tls,
    /// Neither `ws:` nor `wss:`.
    #[error("the scheme is not ws")]
    Scheme,
    /// `user:password@`.
    #[error("a WebSocket URL has no user and password in front of the host (RFC 6455 §3)")]
    UserInfo,
    /// `#…`.
    #[error("a WebSocket URL has no fragment; a '#' in it is written %23 (RFC 6455 §3)")]
    Fragment,
    /// `t=` or `pub=`.
    #[error("'t' and 'pub' in the URL select payload mode; this client subscribes and publishes by itself")]
    PayloadMode,
}

/// The port of `ws:` (RFC 6455 §3).
const DEFAULT_PORT: u16 = 80;

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Self, UrlError> {
        if url.contains('#') {
            return Err(UrlError::Fragment);
        }
        let uri: Uri = url.parse().map_err(|_| UrlError::Malformed)?;
        // RFC 3986 §3.1: in any case.
        match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => {}
            Some("wss") => return Err(UrlError::Tls),
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = authority.host();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str().len() == host.len() => DEFAULT_PORT,
            None => return Err(UrlError::Malformed),
        };
        if host.is_empty() || port == 0 {
            return Err(UrlError::Malformed);
        }
        let mut parameters = uri.query().unwrap_or_default().split('&');
        if parameters.any(|parameter| matches!(parameter.split('=').next(), Some("t" | "pub"))) {
            return Err(UrlError::PayloadMode);
        }
        Ok(Self {
            address: format!("{host}:{port}"),
            host: authority.as_str().to_owned(),
            path_and_query: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_websocket_url_may_be() {
        for (url, address, host, path_and_query) in [
            ("ws://localhost:8080/ws", "localhost:8080", "localhost:8080", "/ws"),
            ("ws://broker", "broker:80", "broker", "/"),
            ("WS://[::1]:9/ws?x=1", "[::1]:9", "[::1]:9", "/ws?x=1"),
        ] {
            let expected = Endpoint {
                address: address.to_owned(),
                host: host.to_owned(),
                path_and_query: path_and_query.to_owned(),
            };
            assert_eq!(Endpoint::parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn refuses_the_others_with_their_reason() {
        for (url, error) in [
            ("", UrlError::Malformed),
            ("/ws", UrlError::Malformed),
            ("ws://", UrlError::Malformed),
            ("ws://host:99999/", UrlError::Malformed),
            ("ws://host:0/", UrlError::Malformed),
            ("wss://host/", UrlError::Tls),
            ("http://host/", UrlError::Scheme),
            ("ws://me:secret@host/", UrlError::UserInfo),
            ("ws://host/ws#x", UrlError::Fragment),
            ("ws://host/ws?last=1&t=a", UrlError::PayloadMode),
            ("ws://host/ws?pub=a", UrlError::PayloadMode),
        ] {
            assert_eq!(Endpoint::parse(url), Err(error), "{url}");
        }
    }
}
