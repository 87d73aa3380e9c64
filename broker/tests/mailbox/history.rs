//! Any history: nothing is lost, and QoS 2 arrives once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Publish(QoS),
    Connect,
    Leave,
    Take(usize),
    Send(usize),
    Receive(usize),
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let qos = prop_oneof![Just(AtLeastOnce), Just(ExactlyOnce)];
    let step = prop_oneof![
        4 => qos.prop_map(Step::Publish),
        1 => Just(Step::Connect),
        1 => Just(Step::Leave),
        3 => (1usize..4).prop_map(Step::Take),
        3 => (1usize..4).prop_map(Step::Send),
        2 => (1usize..3).prop_map(Step::Receive),
        2 => (1usize..3).prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 1..120)
}

/// The client's side: what it was sent under which identifier, and what the application got.
#[derive(Default)]
struct Device {
    in_hand: Vec<Got>,
    /// By packet identifier: tag, payload, QoS, whether PUBREC was sent.
    open: BTreeMap<u16, (Tag, String, QoS, bool)>,
    /// Identifiers of QoS 2 messages that it has and that are not released.
    known: BTreeSet<u16>,
    delivered: Vec<String>,
    next_id: u16,
}

impl Device {
    fn hear(&mut self, packet_id: u16, got: &Got, qos: QoS) {
        let is_new = qos == AtLeastOnce || self.known.insert(packet_id);
        if is_new {
            self.delivered.push(got.payload.clone());
        }
        self.open.insert(packet_id, (got.tag, got.payload.clone(), qos, false));
    }
}

fn qos_of(payload: &str) -> QoS {
    if payload.ends_with("two") { ExactlyOnce } else { AtLeastOnce }
}

/// Every message arrives, in order of its first arrival, and at QoS 2 exactly once, whatever happens in between.
fn check_history(steps: Vec<Step>) {
    let mut world = World::with(|_| ());
    let mut guest = Some(world.connect("c", HOUR));
    world.subscribe(guest.as_mut().unwrap(), "t", ExactlyOnce);
    let mut device = Device { next_id: 1, ..Device::default() };
    let mut published = Vec::new();
    let mut settled = BTreeSet::new();
    let finish = [Step::Connect, Step::Take(1000), Step::Send(1000), Step::Receive(1000), Step::Settle(1000)];
    for step in steps.into_iter().chain(finish) {
        match (step, &mut guest) {
            // Never more than the limits hold, so that nothing may be dropped.
            (Step::Publish(qos), _) if published.len() - settled.len() < QUEUE => {
                let word = if qos == ExactlyOnce { "two" } else { "one" };
                let payload = format!("{} {word}", published.len());
                assert_eq!(world.publish(&payload, qos), 1);
                published.push(payload);
            }
            (Step::Connect, _) => {
                // A takeover, if somebody is there.
                let mut old = guest.replace(world.connect("c", HOUR));
                device.in_hand.clear();
                device.open.clear();
                let new = guest.as_mut().unwrap();
                assert!(new.connected.session_present);
                for one in std::mem::take(&mut new.connected.in_flight) {
                    match one.state {
                        InFlightState::Received(tag) => {
                            device.open.insert(one.packet_id, (tag, String::new(), ExactlyOnce, true));
                        }
                        InFlightState::Sent(delivery) => {
                            let payload = String::from_utf8(delivery.publication.payload.to_vec()).unwrap();
                            let qos = qos_of(&payload);
                            device.hear(one.packet_id, &Got { tag: delivery.tag, payload }, qos);
                        }
                    }
                }
                if let Some(old) = &mut old {
                    world.end(old);
                }
            }
            (Step::Leave, Some(_)) => {
                world.leave(guest.take().unwrap());
                device.in_hand.clear();
                device.open.clear();
            }
            (Step::Take(count), Some(guest)) => device.in_hand.extend(world.take(guest, count)),
            (Step::Send(count), Some(guest)) => {
                let count = count.min(device.in_hand.len());
                for got in device.in_hand.drain(..count).collect::<Vec<_>>() {
                    let packet_id = device.next_id;
                    device.next_id += 1;
                    world.assign(guest, &got, packet_id);
                    device.hear(packet_id, &got, qos_of(&got.payload));
                }
            }
            (Step::Receive(count), Some(guest)) => {
                for (_, (tag, _, qos, received)) in device.open.iter_mut().take(count) {
                    if *qos == ExactlyOnce && !*received {
                        world.request(&mut guest.client, Request::Received { tag: *tag });
                        *received = true;
                    }
                }
            }
            (Step::Settle(count), Some(guest)) => {
                let done: Vec<u16> = device
                    .open
                    .iter()
                    .filter(|(_, (_, _, qos, received))| *qos == AtLeastOnce || *received)
                    .map(|(id, _)| *id)
                    .take(count)
                    .collect();
                for packet_id in done {
                    let (tag, ..) = device.open.remove(&packet_id).unwrap();
                    device.known.remove(&packet_id);
                    world.settle(guest, tag);
                    settled.insert(tag);
                }
            }
            _ => {}
        }
    }
    let mut first_arrivals: Vec<&String> = Vec::new();
    for payload in &device.delivered {
        if !first_arrivals.contains(&payload) {
            first_arrivals.push(payload);
        } else {
            assert_eq!(qos_of(payload), AtLeastOnce, "{payload} came twice");
        }
    }
    assert_eq!(first_arrivals, published.iter().collect::<Vec<_>>());
    assert_eq!(world.queued(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_and_qos_2_arrives_once(history in steps()) {
        check_history(history);
    }
}
