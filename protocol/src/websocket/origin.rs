//! Who may open a connection from a web page: the operator's list of origins and the rule for anonymous
//! clients (SEC-8). A pure decision; it knows no request. Spec: RFC 6454, RFC 6455 §10.2.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The longest `Origin` that is looked at: a host has at most 253 characters.
pub const ORIGIN_BYTES_MAX: usize = 512;

/// One entry of the operator's list: `*`, `null`, or `scheme://host[:port]`, where the host may be `*` or begin
/// with `*.` (any depth of names below it), and the port may be `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Null,
    Origin { scheme: Box<str>, host: HostPattern, port: PortPattern },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// With the dot: `.example.org`.
    Below(Box<str>),
    Exact(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    Exact(Option<u16>),
}

/// Why an entry of the list is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: use scheme://host[:port], as in https://example.org or https://*.example.org")]
pub struct OriginError(pub String);

/// What decides about an origin.
#[derive(Clone, Copy, Debug)]
pub struct OriginPolicy<'a> {
    /// The list; empty means any.
    pub origins: &'a [OriginPattern],
    /// A client that sends no `Origin` is refused.
    pub require_origin: bool,
    /// The peer would be let in without credentials, and only because it is loopback. Any page open on that
    /// machine could make its browser such a peer.
    pub is_anonymous_loopback: bool,
}

/// Why an origin is refused. Each is a 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginRefusal {
    /// There was none.
    #[error("an Origin header is required here")]
    Missing,
    /// It came twice, or is longer than any origin.
    #[error("the Origin header is repeated or too long")]
    Malformed,
    /// Not in the list.
    #[error("the origin {0:?} is not in websocket.origins")]
    NotListed(Box<str>),
    /// A page from elsewhere that would use the machine's own standing.
    #[error(
        "the origin {0:?} is not local, and anonymous clients are allowed from this machine only; \
         list it in websocket.origins or send credentials"
    )]
    NotLocal(Box<str>),
}

impl OriginPolicy<'_> {
    /// SEC-8. `origins` are the values of all `Origin` lines.
    pub fn check<'o>(
        &self,
        origins: impl IntoIterator<Item = Option<&'o str>>,
    ) -> Result<Option<&'o str>, OriginRefusal> {
        let mut origins = origins.into_iter();
        let Some(origin) = origins.next() else {
            return if self.require_origin { Err(OriginRefusal::Missing) } else { Ok(None) };
        };
        let origin = origin.filter(|origin| origin.len() <= ORIGIN_BYTES_MAX);
        let origin = origin.filter(|_| origins.next().is_none()).ok_or(OriginRefusal::Malformed)?;
        if self.origins.iter().any(|pattern| pattern.matches(origin)) {
            return Ok(Some(origin));
        }
        if !self.origins.is_empty() {
            return Err(OriginRefusal::NotListed(origin.into()));
        }
        if self.is_anonymous_loopback && origin != "null" && !is_loopback(origin) {
            return Err(OriginRefusal::NotLocal(origin.into()));
        }
        Ok(Some(origin))
    }
}

impl OriginPattern {
    /// Checks one entry of the list.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let error = || OriginError(text.to_owned());
        match text {
            "*" => return Ok(Self(Pattern::Any)),
            "null" => return Ok(Self(Pattern::Null)),
            _ => {}
        }
        let (scheme, host, port) = split(text).ok_or_else(error)?;
        let host = match host.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(below) if below.len() > 1 && below.starts_with('.') && !below.contains('*') => {
                HostPattern::Below(below.to_ascii_lowercase().into())
            }
            None if !host.contains('*') => HostPattern::Exact(host.to_ascii_lowercase().into()),
            _ => return Err(error()),
        };
        let port = match port {
            Some("*") => PortPattern::Any,
            port => PortPattern::Exact(effective_port(scheme, port).ok_or_else(error)?),
        };
        Ok(Self(Pattern::Origin { scheme: scheme.to_ascii_lowercase().into(), host, port }))
    }

    /// Whether the value of an `Origin` header is meant.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        let (scheme, host, port) = match &self.0 {
            Pattern::Any => return true,
            Pattern::Null => return origin == "null",
            Pattern::Origin { scheme, host, port } => (scheme, host, port),
        };
        let Some((its_scheme, its_host, its_port)) = split(origin) else { return false };
        let Some(its_port) = effective_port(its_scheme, its_port) else { return false };
        let its_host = its_host.to_ascii_lowercase();
        its_scheme.eq_ignore_ascii_case(scheme)
            && match host {
                HostPattern::Any => true,
                HostPattern::Below(below) => {
                    its_host.strip_suffix(&**below).is_some_and(|name| !name.is_empty())
                }
                HostPattern::Exact(host) => its_host == **host,
            }
            && match *port {
                PortPattern::Any => true,
                PortPattern::Exact(port) => its_port == port,
            }
    }
}

/// Scheme, host and port of `scheme://host[:port]`, and nothing behind it.
fn split(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let end_of_host = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.find(']')? + 2,
        None => rest.find(':').unwrap_or(rest.len()),
    };
    let (host, port) = rest.split_at_checked(end_of_host)?;
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?),
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'@' | b','));
    (is_scheme && is_host).then_some((scheme, host, port))
}

/// The port, or the scheme's own: `https://a` and `https://a:443` are one origin (RFC 6454 §4).
fn effective_port(scheme: &str, port: Option<&str>) -> Option<Option<u16>> {
    match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().map(Some),
        Some(_) => None,
        None if scheme.eq_ignore_ascii_case("http") => Some(Some(80)),
        None if scheme.eq_ignore_ascii_case("https") => Some(Some(443)),
        None => Some(None),
    }
}

fn is_loopback(origin: &str) -> bool {
    let Some((_, host, _)) = split(origin) else { return false };
    let host = host.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_pattern(pattern: &str, origin: &str, expected: bool) {
        let parsed = OriginPattern::parse(pattern).unwrap();
        assert_eq!(parsed.matches(origin), expected, "{pattern} against {origin}");
    }

    #[test]
    fn patterns_match_origins_and_not_strings() {
        for (pattern, origin, expected) in [
            ("https://example.org", "https://example.org", true),
            ("https://example.org", "HTTPS://Example.ORG:443", true),
            ("https://example.org", "http://example.org", false),
            ("https://example.org", "https://example.org:8443", false),
            ("https://example.org", "https://example.org.evil.net", false),
            ("https://example.org", "https://evil.net/https://example.org", false),
            ("https://example.org", "https://user@example.org", false),
            ("https://*.example.org", "https://a.example.org", true),
            ("https://*.example.org", "https://a.b.example.org", true),
            ("https://*.example.org", "https://example.org", false),
            ("https://*.example.org", "https://.example.org", false),
            ("https://*.example.org", "https://evilexample.org", false),
            ("http://localhost:*", "http://localhost:5173", true),
            ("https://*", "https://anything.net", true),
            ("https://*", "http://anything.net", false),
            ("*", "null", true),
            ("null", "null", true),
            ("https://*", "null", false),
            ("http://[::1]:8080", "http://[::1]:8080", true),
        ] {
            check_pattern(pattern, origin, expected);
        }
    }

    #[test]
    fn refuses_entries_that_are_no_origin() {
        for text in
            ["", "example.org", "https://", "https://a*.org", "https://*.", "https://a/b", "https://a:x"]
        {
            assert!(OriginPattern::parse(text).is_err(), "{text:?}");
        }
    }

    fn check_policy(listed: &[&str], loopback: bool, origins: &[&str], expected: Result<(), &str>) {
        let patterns = listed.iter().map(|text| OriginPattern::parse(text).unwrap()).collect::<Vec<_>>();
        let policy =
            OriginPolicy { origins: &patterns, require_origin: false, is_anonymous_loopback: loopback };
        let result = policy.check(origins.iter().copied().map(Some)).map(|_| ());
        let result = result.map_err(|refusal| match refusal {
            OriginRefusal::Missing => "missing",
            OriginRefusal::Malformed => "malformed",
            OriginRefusal::NotListed(_) => "not listed",
            OriginRefusal::NotLocal(_) => "not local",
        });
        assert_eq!(result, expected, "{listed:?} {loopback} {origins:?}");
    }

    #[test]
    fn an_anonymous_loopback_client_needs_a_local_page() {
        for origin in
            ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8", "null", "http://a.localhost"]
        {
            check_policy(&[], true, &[origin], Ok(()));
        }
        for origin in
            ["http://evil.net", "http://localhost.evil.net", "http://127.0.0.1.evil.net", "", "file://"]
        {
            check_policy(&[], true, &[origin], Err("not local"));
            check_policy(&[], false, &[origin], Ok(()));
        }
        check_policy(&[], true, &[], Ok(()));
        check_policy(&["https://a.org"], true, &["https://a.org"], Ok(()));
    }

    #[test]
    fn an_unlisted_doubled_or_overlong_origin_is_refused() {
        let long = format!("https://{}.org", "a".repeat(ORIGIN_BYTES_MAX));
        check_policy(&["https://a.org"], false, &["https://b.org"], Err("not listed"));
        check_policy(&["https://a.org"], true, &["http://localhost"], Err("not listed"));
        check_policy(&["https://a.org"], false, &["https://a.org", "https://a.org"], Err("malformed"));
        check_policy(&[], false, &[&long], Err("malformed"));
        check_policy(&["https://a.org"], false, &[], Ok(()));
    }

    #[test]
    fn an_origin_may_be_required() {
        let policy = OriginPolicy { origins: &[], require_origin: true, is_anonymous_loopback: false };
        assert_eq!(policy.check([]), Err(OriginRefusal::Missing));
        assert_eq!(policy.check([None]), Err(OriginRefusal::Malformed));
    }
}
