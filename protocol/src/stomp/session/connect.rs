//! CONNECT and CONNECTED: versions, credentials, what the client asks for at the beginning.
//! Spec: STOMP 1.2 "Connecting", "Protocol Negotiation"; STOMP 1.1 the same; 1.0 has neither version nor host.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::frame::{Command, Frame};
use super::super::{Settings, Version};
use super::error::SessionError;
use super::heart_beat::Offer;
use crate::session::{Connect, Credentials, LagNotice};

/// A CONNECT that was understood, on its way to the broker.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) offer: Offer,
    pub(super) login: Option<Box<str>>,
    /// What durable subscriptions by name belong to.
    pub(super) client_id: Option<Box<str>>,
}

/// Reads CONNECT or STOMP. `bearer` counts when the frame itself proves nothing.
pub(super) fn read(
    mut frame: Frame,
    bearer: Option<Box<str>>,
    ceiling: Version,
    settings: &Settings,
) -> Result<(Asked, Box<Connect>), SessionError> {
    let version = negotiate(frame.header("accept-version"), ceiling, settings)?;
    if version == Version::V1_0 {
        frame.trim_headers();
    }
    if frame.header("will-destination").is_some() {
        return Err(SessionError::Unsupported("will-destination"));
    }
    // 1.0 knows no heart-beats.
    let offer = if version == Version::V1_0 { None } else { frame.header("heart-beat") };
    let login: Option<Box<str>> = frame.header("login").map(Into::into);
    let passcode = frame.header("passcode").map(|passcode| Bytes::copy_from_slice(passcode.as_bytes()));
    let credentials = match (&login, passcode) {
        (None, None) => bearer.map(Credentials::Token),
        (user, password) => Some(Credentials::Password { user: user.clone().unwrap_or_default(), password }),
    };
    let client_id: Option<Box<str>> = frame.header("client-id").map(Into::into);
    let connect = Connect {
        client_id: client_id.clone(),
        clean_start: true,
        session_expiry: Some(Duration::ZERO),
        subscriptions_max: settings.max_subscriptions,
        forms: None,
        credentials,
        will: None,
        packet_bytes_max: None,
        lag: LagNotice::WithNext,
    };
    let client_id = client_id.filter(|id| !id.is_empty());
    let asked = Asked { version, offer: Offer::parse(offer)?, login, client_id };
    Ok((asked, Box::new(connect)))
}

/// The highest common version. A client that names none speaks 1.0.
fn negotiate(accept: Option<&str>, ceiling: Version, settings: &Settings) -> Result<Version, SessionError> {
    let accept = accept.unwrap_or("1.0");
    let ours = || settings.versions.iter().copied().filter(|version| *version <= ceiling);
    let common = accept
        .split(',')
        .filter_map(|name| Version::parse(name.trim()))
        .filter(|version| ours().any(|our| our == *version))
        .max();
    common.ok_or_else(|| {
        let mut supported: Vec<_> = ours().collect();
        supported.sort_unstable();
        let names: Vec<_> = supported.into_iter().map(Version::as_str).collect();
        SessionError::NoCommonVersion { supported: names.join(",") }
    })
}

/// The answer to a CONNECT.
pub(super) fn encode_connected(asked: &Asked, session: &str, settings: &Settings, out: &mut BytesMut) {
    let mut frame = Frame::new(Command::Connected)
        .with_header("version", asked.version.as_str())
        .with_header("server", concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .with_header("session", session);
    if asked.version > Version::V1_0 {
        let (send, receive) = (settings.heart_beat_send.as_millis(), settings.heart_beat_receive.as_millis());
        frame = frame.with_header("heart-beat", format!("{send},{receive}"));
    }
    if let Some(login) = &asked.login {
        frame = frame.with_header("user-name", &**login);
    }
    frame.encode(asked.version, out);
}
