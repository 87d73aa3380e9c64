//! The simplest member, for the tests of this room.

use std::num::NonZeroU32;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Copies, SubscriptionId};

use super::Member;

/// A subscription that is nothing but its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64, u32);

/// A member of a set.
pub(crate) fn mark(client: u64, subscription: u32) -> Mark {
    Mark(client, subscription)
}

impl Member for Mark {
    fn client(&self) -> u64 {
        self.0
    }

    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(self.1)
    }

    fn qos(&self) -> QoS {
        QoS::AtMostOnce
    }

    fn copies(&self) -> Copies {
        Copies::PerClient
    }

    fn filter(&self) -> &str {
        "a"
    }

    fn identifier(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.1)
    }
}
