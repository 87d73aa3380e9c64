//! The client's two messages, from bytes to their parts. Knows no user and no key. Spec: RFC 5802 §5 and §7.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ScramError;
use super::keys::{self, KEY_BYTES, Key};

/// The longest message of a client: a user name of [`super::NAME_BYTES_MAX`] with every character escaped, twice, and
/// a nonce several times as long as any that is in use.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// The attributes that RFC 5802 §5.1 defines; none of them is an extension. `m` must end every exchange.
const DEFINED: &[char] = &['a', 'n', 'm', 'r', 'c', 's', 'i', 'p', 'v', 'e'];

/// `client-first-message`.
#[derive(Debug)]
pub(super) struct ClientFirst<'a> {
    /// `gs2-header`, which the client repeats under its proof.
    pub(super) gs2_header: &'a str,
    /// `client-first-message-bare`.
    pub(super) bare: &'a str,
    /// Prepared with SASLprep.
    pub(super) user: Box<str>,
    pub(super) nonce: &'a str,
}

/// `client-final-message`.
#[derive(Debug)]
pub(super) struct ClientFinal<'a> {
    /// `c=`, in base64.
    pub(super) channel_binding: &'a str,
    pub(super) nonce: &'a str,
    pub(super) without_proof: &'a str,
    pub(super) proof: Key,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed("no gs2-header"))?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed("no gs2-header"))?;
        match flag {
            // `y`: the client could bind to a channel and saw that we do not offer it, which is true.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(ScramError::ChannelBindingUnsupported),
            _ => return Err(ScramError::Malformed("the gs2-header begins with neither n, y nor p=")),
        }
        let mut attributes = bare.split(',');
        let user = user(attribute(attributes.next(), 'n')?)?;
        let nonce = nonce(attribute(attributes.next(), 'r')?)?;
        attributes.try_for_each(extension)?;
        // RFC 5802 §5.1: another identity is for users who may act for others, which none may here.
        if !authzid.is_empty() && self::user(attribute(Some(authzid), 'a')?)? != user {
            return Err(ScramError::OtherIdentity);
        }
        let gs2_header = text.strip_suffix(bare).unwrap_or_default();
        Ok(Self { gs2_header, bare, user, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(',').ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = without_proof.split(',');
        let channel_binding = attribute(attributes.next(), 'c')?;
        let nonce = nonce(attribute(attributes.next(), 'r')?)?;
        attributes.try_for_each(extension)?;
        let proof =
            STANDARD.decode(attribute(Some(proof), 'p')?).ok().and_then(|proof| proof.try_into().ok());
        let proof: [u8; KEY_BYTES] =
            proof.ok_or(ScramError::Malformed("the proof is not 32 bytes in base64"))?;
        Ok(Self { channel_binding, nonce, without_proof, proof })
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::TooLong);
    }
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))?;
    if text.contains('\0') { Err(ScramError::Malformed("a NUL")) } else { Ok(text) }
}

/// The value of the attribute that has to stand here.
fn attribute(text: Option<&str>, name: char) -> Result<&str, ScramError> {
    let text = text.unwrap_or_default();
    if text.starts_with("m=") {
        return Err(ScramError::ExtensionUnsupported);
    }
    let value = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
    value
        .filter(|value| !value.is_empty())
        .ok_or(ScramError::Malformed("an attribute is missing or out of place"))
}

/// RFC 5802 §5.1: what is well formed and unknown is ignored, but for `m`.
fn extension(text: &str) -> Result<(), ScramError> {
    let (name, value) = text.split_once('=').unwrap_or_default();
    let mut letters = name.chars();
    match (letters.next(), letters.next()) {
        (Some('m'), None) => Err(ScramError::ExtensionUnsupported),
        (Some(letter), None)
            if letter.is_ascii_alphabetic() && !DEFINED.contains(&letter) && !value.is_empty() =>
        {
            Ok(())
        }
        _ => Err(ScramError::Malformed("an extension is not one")),
    }
}

/// `saslname`, unescaped and prepared.
fn user(escaped: &str) -> Result<Box<str>, ScramError> {
    let mut pieces = escaped.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            // RFC 5802 §5.1: the server MUST fail the authentication.
            (None, None) => {
                return Err(ScramError::Malformed("the name has a '=' without 2C or 3D behind it"));
            }
        };
        name.push(character);
        name.push_str(rest);
    }
    keys::prepare(&name).map(|prepared| prepared.into()).ok_or(ScramError::BadName)
}

/// `printable`: no space, no comma (which ended the attribute).
fn nonce(nonce: &str) -> Result<&str, ScramError> {
    let is_printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    is_printable
        .then_some(nonce)
        .ok_or(ScramError::Malformed("the nonce has a character that is not printable"))
}
