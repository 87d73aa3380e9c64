//! The one timer of a connection, and the WebSocket pings that tell whether the peer is there.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

use tokio::time::Sleep;

use super::Settings;

/// A timer that is moved only when it has to ring earlier: a deadline that moves with every message costs nothing.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Whether `deadline` has come; if not, the task is woken then at the latest.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant, now: Instant) -> bool {
        if deadline <= now {
            return true;
        }
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if sleep.deadline() > deadline || sleep.is_elapsed() {
                    sleep.as_mut().reset(deadline);
                }
                sleep
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(deadline))),
        };
        // It rang for an earlier deadline that has moved since.
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

/// When the peer was last heard, and what follows from its silence.
#[derive(Debug)]
pub(super) struct Pulse {
    ping_at: Option<Instant>,
    pong_by: Option<Instant>,
    idle_by: Option<Instant>,
}

/// What a deadline asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    Ping,
    Silent,
    Idle,
}

impl Pulse {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            ping_at: settings.ping_interval.map(|interval| now + interval),
            pong_by: None,
            idle_by: settings.idle_timeout.map(|timeout| now + timeout),
        }
    }

    /// Any byte shows that the peer is there: a pong cannot come amid a frame that takes long.
    pub(super) fn handle_bytes(&mut self) {
        self.pong_by = None;
    }

    /// A data message is what `websocket.idle_timeout` waits for.
    pub(super) fn handle_message(&mut self, settings: &Settings, now: Instant) {
        self.idle_by = settings.idle_timeout.map(|timeout| now + timeout);
    }

    /// Reading was paused or goes on: silence counts from here.
    pub(super) fn restart(&mut self, settings: &Settings, now: Instant) {
        *self = Self::new(settings, now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.ping_at, self.pong_by, self.idle_by].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, settings: &Settings, now: Instant) -> Beat {
        if self.pong_by.is_some_and(|by| by <= now) {
            return Beat::Silent;
        }
        if self.idle_by.is_some_and(|by| by <= now) {
            return Beat::Idle;
        }
        if self.ping_at.is_some_and(|at| at <= now) {
            self.ping_at = settings.ping_interval.map(|interval| now + interval);
            self.pong_by.get_or_insert(now + settings.pong_timeout);
            return Beat::Ping;
        }
        Beat::Nothing
    }
}
