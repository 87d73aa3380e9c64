//! How many clients a listener takes, from where, and how fast.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ahash::HashMap;
use parking_lot::Mutex;

/// The limits of one listener. `None` is `"none"` in the file.
#[derive(Clone, Debug)]
pub struct AdmissionLimits {
    /// `max_connections`.
    pub connections_max: usize,
    /// `max_connections_per_ip`.
    pub connections_per_ip_max: Option<usize>,
    /// `accept_rate`: handshakes per second.
    pub handshakes_per_second: Option<u32>,
}

/// The books of one listener.
#[derive(Debug)]
pub(super) struct Admission {
    limits: AdmissionLimits,
    sockets: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    bucket: Mutex<Bucket>,
}

/// A socket that was entered.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its place.
    pub(super) place: Place,
    /// Why it is to be answered with 503.
    pub(super) excess: Option<Excess>,
}

/// A place in the books, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    /// Where addresses are counted.
    ip: Option<Box<IpAddr>>,
    /// Memory for context takeover.
    pub(super) takeover: Option<Box<Spent>>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Connections(usize),
    PerIp(usize),
    Rate(u32),
}

/// A second's worth of handshakes, refilled as time passes.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Option<Instant>,
}

/// Sockets beyond `max_connections` that are told why they are refused; further ones are dropped unheard.
const REFUSALS_AT_ONCE_MAX: usize = 1000;

impl Admission {
    pub(super) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            sockets: AtomicUsize::new(0),
            per_ip: Mutex::default(),
            bucket: Mutex::new(Bucket { tokens: 0.0, filled_at: None }),
        })
    }

    /// Enters a socket. `None`: even the refusal would cost too much.
    pub(super) fn begin(self: &Arc<Self>, ip: IpAddr, now: Instant) -> Option<Admitted> {
        let ip = ip.to_canonical();
        let before = self.sockets.fetch_add(1, Ordering::Relaxed);
        let of_ip = self.enter_ip(ip);
        let excess = self.excess(before, of_ip, now);
        let counted = self.limits.connections_per_ip_max.map(|_| Box::new(ip));
        let place = Place { admission: Arc::clone(self), ip: counted, takeover: None };
        let admitted = Admitted { place, excess };
        (before < self.limits.connections_max.saturating_add(REFUSALS_AT_ONCE_MAX)).then_some(admitted)
    }

    fn excess(&self, before: usize, of_ip: usize, now: Instant) -> Option<Excess> {
        let AdmissionLimits { connections_max, connections_per_ip_max, handshakes_per_second } = self.limits;
        if before >= connections_max {
            return Some(Excess::Connections(connections_max));
        }
        if let Some(limit) = connections_per_ip_max.filter(|limit| of_ip > *limit) {
            return Some(Excess::PerIp(limit));
        }
        handshakes_per_second.filter(|rate| !self.bucket.lock().take(*rate, now)).map(Excess::Rate)
    }

    fn enter_ip(&self, ip: IpAddr) -> usize {
        if self.limits.connections_per_ip_max.is_none() {
            return 0;
        }
        let mut per_ip = self.per_ip.lock();
        let count = per_ip.entry(ip).or_insert(0);
        *count += 1;
        *count
    }
}

impl Place {
    /// Memory reserved for context takeover.
    pub(super) fn takeover_bytes(&self) -> u64 {
        self.takeover.as_ref().map_or(0, |spent| spent.bytes as u64)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.sockets.fetch_sub(1, Ordering::Relaxed);
        let Some(ip) = &self.ip else { return };
        let mut per_ip = self.admission.per_ip.lock();
        if let Some(count) = per_ip.get_mut(ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(ip);
            }
        }
    }
}

impl Bucket {
    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let rate = f64::from(per_second);
        let passed = self.filled_at.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.filled_at = Some(now);
        self.tokens = passed.mul_add(rate, self.tokens).min(rate.max(1.0));
        let has_token = self.tokens >= 1.0;
        if has_token {
            self.tokens -= 1.0;
        }
        has_token
    }
}

/// Memory that several may use up together.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Spent {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    pub(super) fn spend(self: &Arc<Self>, bytes: usize) -> Option<Spent> {
        let take = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Spent { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> AdmissionLimits {
        AdmissionLimits { connections_max: 10, connections_per_ip_max: None, handshakes_per_second: None }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_place_is_given_back() {
        let admission = Admission::new(AdmissionLimits { connections_max: 1, ..limits() });
        let now = Instant::now();
        let first = admission.begin(ip(1), now).unwrap();
        assert_eq!(first.excess, None);
        assert_eq!(admission.begin(ip(1), now).unwrap().excess, Some(Excess::Connections(1)));
        drop(first);
        assert_eq!(admission.begin(ip(1), now).unwrap().excess, None);
    }

    #[test]
    fn addresses_are_counted_apart() {
        let admission = Admission::new(AdmissionLimits { connections_per_ip_max: Some(1), ..limits() });
        let now = Instant::now();
        let _first = admission.begin(ip(1), now).unwrap();
        assert_eq!(admission.begin(ip(1), now).unwrap().excess, Some(Excess::PerIp(1)));
        assert_eq!(admission.begin(ip(2), now).unwrap().excess, None);
    }

    #[test]
    fn a_second_has_its_share_of_handshakes() {
        let admission = Admission::new(AdmissionLimits { handshakes_per_second: Some(2), ..limits() });
        let now = Instant::now();
        let excess = |at| admission.begin(ip(1), at).unwrap().excess;
        assert_eq!([excess(now), excess(now), excess(now)], [None, None, Some(Excess::Rate(2))]);
        assert_eq!(excess(now + Duration::from_millis(500)), None);
    }

    #[test]
    fn a_budget_is_never_overspent() {
        let budget = Budget::new(100);
        let part = budget.spend(60).unwrap();
        assert!(budget.spend(60).is_none());
        drop(part);
        assert!(budget.spend(60).is_some());
    }
}
