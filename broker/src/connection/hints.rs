//! What sessions noticed of their clients and an operator may want to know: one line each, once per process.

use std::sync::Once;

use tidegate_protocol::session::Hint;
use tracing::info;

/// Logs the hint, unless another connection gave it before. Names no client: the first is as good as any.
pub(super) fn say_once(hint: Hint) {
    match hint {
        Hint::DottedDestination => DOTTED_DESTINATION.call_once(|| {
            info!(
                key = "stomp.separator",
                "a STOMP client separates the levels of its destinations by dots; here a dot is part of a level, unless stomp.separator is \".\""
            );
        }),
    }
}

static DOTTED_DESTINATION: Once = Once::new();
