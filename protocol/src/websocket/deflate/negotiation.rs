//! `Sec-WebSocket-Extensions`: offers and responses of permessage-deflate. A malformed offer is declined and
//! the next one tried; none of it ever fails a handshake on the server's side.
//! Spec: RFC 6455 §9.1, RFC 7692 §5 and §7.1.

use std::borrow::Cow;
use std::fmt::Write;

use super::{EXTENSION, Params, Settings, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::websocket::token::{OWS, is_token};

/// Why a server's response is not one to what we offered (RFC 7692 §7.1: the client fails the connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// An extension that was not offered, or parameters that are not those of permessage-deflate.
    #[error("the server answers with an extension or parameter that was not offered")]
    NotOffered,
    /// The extension twice.
    #[error("the server accepts permessage-deflate twice")]
    Twice,
    /// The server's window would be larger than asked for.
    #[error("the server does not keep to the window that was asked for")]
    WindowTooLarge,
    /// Asked for and not confirmed.
    #[error("the server does not confirm {0}")]
    NotConfirmed(&'static str),
}

/// The first offer in the client's order that can be accepted. `headers` are the values of all
/// `Sec-WebSocket-Extensions` lines.
pub fn negotiate<'a>(headers: impl IntoIterator<Item = &'a str>, settings: &Settings) -> Option<Params> {
    if !settings.enabled {
        return None;
    }
    let mut elements = headers.into_iter().flat_map(|header| split_outside_quotes(header, b','));
    elements.find_map(|element| Some(Offered::parse(element)?.accept(settings)))
}

/// The value of the response's header.
impl std::fmt::Display for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(EXTENSION)?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        if let Some(bits) = self.client_max_window_bits {
            write!(f, "; client_max_window_bits={bits}")?;
        }
        Ok(())
    }
}

/// What a client offers under these settings: the same parameters, and that its own window may be limited.
#[must_use]
pub fn offer(settings: &Settings) -> Option<String> {
    if !settings.enabled {
        return None;
    }
    let mut offer = format!("{EXTENSION}; client_max_window_bits");
    if settings.server_no_context_takeover {
        offer.push_str("; server_no_context_takeover");
    }
    if settings.client_no_context_takeover {
        offer.push_str("; client_no_context_takeover");
    }
    if settings.server_max_window_bits < WINDOW_BITS_MAX {
        // Writing to a String cannot fail.
        let _ = write!(offer, "; server_max_window_bits={}", settings.server_max_window_bits);
    }
    Some(offer)
}

/// What the server made of [`offer`]. `None`: it declined.
pub fn accept_response<'a>(
    headers: impl IntoIterator<Item = &'a str>,
    settings: &Settings,
) -> Result<Option<Params>, NegotiationError> {
    let mut accepted = None;
    for element in headers.into_iter().flat_map(|header| split_outside_quotes(header, b',')) {
        if element.trim_matches(OWS).is_empty() {
            continue;
        }
        let offered = Offered::parse(element).filter(|_| settings.enabled);
        let params = offered.ok_or(NegotiationError::NotOffered)?.confirm(settings)?;
        if accepted.replace(params).is_some() {
            return Err(NegotiationError::Twice);
        }
    }
    Ok(accepted)
}

/// The parameters of one element, in an offer or a response.
#[derive(Clone, Copy, Debug, Default)]
struct Offered {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// The value may be absent in an offer (RFC 7692 §7.1.2.2).
    client_max_window_bits: Option<Option<u8>>,
}

impl Offered {
    /// `None` for another extension, and for an unknown, repeated or malformed parameter (RFC 7692 §7.1).
    fn parse(element: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(element, b';').map(|part| part.trim_matches(OWS));
        if !parts.next()?.eq_ignore_ascii_case(EXTENSION) {
            return None;
        }
        let mut offered = Self::default();
        for part in parts {
            offered.take(part)?;
        }
        Some(offered)
    }

    fn take(&mut self, part: &str) -> Option<()> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_matches(OWS), Some(unquote(value.trim_matches(OWS))?)),
            None => (part, None),
        };
        let value = value.as_deref();
        let is_new = match name.to_ascii_lowercase().as_str() {
            "server_no_context_takeover" if value.is_none() => {
                !std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            "client_no_context_takeover" if value.is_none() => {
                !std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            "server_max_window_bits" => self.server_max_window_bits.replace(window_bits(value?)?).is_none(),
            "client_max_window_bits" => {
                let bits = match value {
                    Some(value) => Some(window_bits(value)?),
                    None => None,
                };
                self.client_max_window_bits.replace(bits).is_none()
            }
            _ => false,
        };
        is_new.then_some(())
    }

    /// The server's answer. There is none of these parameters that it could not keep.
    fn accept(self, settings: &Settings) -> Params {
        let wanted = settings.server_max_window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        let server_max_window_bits = match self.server_max_window_bits {
            // §7.1.2.1: an offer that has it is accepted with the same or a smaller value.
            Some(offered) => Some(offered.min(wanted)),
            None => (wanted < WINDOW_BITS_MAX).then_some(wanted),
        };
        Params {
            // zlib cannot take a context over in a window of 8 bits; saying so helps the client.
            server_no_context_takeover: self.server_no_context_takeover
                || settings.server_no_context_takeover
                || server_max_window_bits == Some(WINDOW_BITS_MIN),
            client_no_context_takeover: self.client_no_context_takeover
                || settings.client_no_context_takeover,
            server_max_window_bits,
            // §7.1.2.2: answered only if offered. Our inflater has the largest window, so the client's own wish
            // is all there is to say.
            client_max_window_bits: self.client_max_window_bits.flatten(),
        }
    }

    /// The client's check of a response against its own offer.
    fn confirm(self, settings: &Settings) -> Result<Params, NegotiationError> {
        if settings.server_no_context_takeover && !self.server_no_context_takeover {
            return Err(NegotiationError::NotConfirmed("server_no_context_takeover"));
        }
        if settings.server_max_window_bits < WINDOW_BITS_MAX {
            match self.server_max_window_bits {
                None => return Err(NegotiationError::NotConfirmed("server_max_window_bits")),
                Some(bits) if bits > settings.server_max_window_bits => {
                    return Err(NegotiationError::WindowTooLarge);
                }
                Some(_) => {}
            }
        }
        let client_max_window_bits = match self.client_max_window_bits {
            Some(None) => return Err(NegotiationError::NotOffered),
            other => other.flatten(),
        };
        Ok(Params {
            server_no_context_takeover: self.server_no_context_takeover,
            // The hint in our offer binds us whether the server repeats it or not (§7.1.1.2).
            client_no_context_takeover: self.client_no_context_takeover
                || settings.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits,
            client_max_window_bits,
        })
    }
}

/// RFC 7692 §7.1.2: a decimal number from 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let plain = !value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    let bits = value.parse().ok().filter(|_| plain)?;
    (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits).then_some(bits)
}

/// A token, or a quoted string whose content is one (RFC 6455 §9.1).
fn unquote(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else {
        return is_token(value).then_some(Cow::Borrowed(value));
    };
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
    (characters.next().is_none() && is_token(&text)).then_some(Cow::Owned(text))
}

/// The parts between separators, none of which stands within a quoted string.
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                _ if byte == separator && !is_quoted => {
                    rest = text.get(at + 1..);
                    return text.get(..at);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}
