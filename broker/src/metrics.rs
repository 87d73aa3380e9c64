//! Placeholder until merged.
use std::sync::Arc;
use tidegate_protocol::session::{CloseKind, DropReason};
use tidegate_protocol::subprotocol::Family;
#[derive(Debug, Default)]
pub struct FamilyCounters {}
#[derive(Debug, Default)]
pub struct Metrics {
    f: Arc<FamilyCounters>,
}
impl FamilyCounters {
    pub fn messages_in(&self, _n: usize) {}
    pub fn messages_out(&self, _n: usize) {}
    pub fn bytes_in(&self, _n: usize) {}
}
impl Metrics {
    pub fn family(&self, _f: Family) -> &Arc<FamilyCounters> {
        &self.f
    }
    pub fn dropped(&self, _r: DropReason, _n: u64) {}
    pub fn disconnected(&self, _k: CloseKind) {}
    pub fn publisher_held(&self) {}
    pub fn subscribed(&self, _n: u64) {}
    pub fn unsubscribed(&self, _n: u64) {}
    pub fn connected(&self, _f: Family) {}
    pub fn gone(&self, _f: Family) {}
    pub fn refused(&self, _w: &'static str) {}
}
