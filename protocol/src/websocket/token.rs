//! The words of HTTP headers that the handshake and the extension share. Spec: RFC 9110 §5.6.

/// Whether the text is a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// Optional white space (RFC 9110 §5.6.3).
pub(super) const OWS: [char; 2] = [' ', '\t'];
