//! What is measured at QoS 0: each scenario starts a broker, opens its connections, drives them, and answers with rows.
//! Bounded in connections, messages and time.

use std::io;
use std::time::Duration;

use crate::child::Queues;
use crate::drive::{Group, Pace, greet};
use crate::report::Row;
use crate::rig::{FIXED_DELIVERIES_PER_SECOND, Payload, Rig, Setting, Subject, bytes, credit};

/// One publisher, `n` subscribers, one topic; saturation, then a fixed rate.
pub fn fanout(setting: &Setting, subject: Subject, n: usize, size: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::fanout(setting, subject, n, &Payload::text(size), Queues::NeverDrop, false)?;
    let name = format!("fanout 1→{n}, {}", bytes(size));
    let saturation = rig.row(setting, format!("{name}, saturation"), credit(size), &[])?;
    let pace = Pace::Fixed { messages_per_second: FIXED_DELIVERIES_PER_SECOND / n as f64 };
    let fixed = rig.row(setting, format!("{name}, 20 000/s"), pace, &[])?;
    Ok(vec![saturation, fixed])
}

/// 1→`n` with JSON of 1 KiB, to subscribers that negotiated deflate or did not.
pub fn deflate(setting: &Setting, subject: Subject, n: usize, deflated: bool) -> io::Result<Vec<Row>> {
    let payload = Payload::json(1024);
    let mut rig = Rig::fanout(setting, subject, n, &payload, Queues::NeverDrop, deflated)?;
    let name = format!("deflate {}, 1→{n}, 1 KiB JSON, saturation", if deflated { "on" } else { "off" });
    let mut row = rig.row(setting, name, credit(1024), &[])?;
    let rss = rig.broker.rss_bytes()?.saturating_sub(rig.rss_before);
    row.figures.push(("rss_bytes_per_connection", rss as f64 / n as f64));
    row.figures.push(("deflated_share", rig.swarm.deflated as f64 / rig.swarm.deliveries.max(1) as f64));
    Ok(vec![row])
}

/// `n` publishers, one subscriber.
pub fn fanin(setting: &Setting, subject: Subject, n: usize, size: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(size), Queues::NeverDrop)?;
    let subscribers = rig.subscribers(1, |_| vec!["load/in".to_owned()], false)?;
    let publishers = rig.publishers(&vec!["load/in".to_owned(); n])?;
    rig.groups = vec![Group::new(publishers, subscribers)];
    both_paces(&mut rig, setting, &format!("fanin {n}→1, {}", bytes(size)), size, FIXED_DELIVERIES_PER_SECOND)
}

/// `n` pairs of one publisher and one subscriber.
pub fn pairs(setting: &Setting, subject: Subject, n: usize, size: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(size), Queues::NeverDrop)?;
    let subscribers = rig.subscribers(n, |index| vec![format!("load/pair/{index}")], false)?;
    let topics: Vec<String> = (0..n).map(|index| format!("load/pair/{index}")).collect();
    for (publisher, subscriber) in rig.publishers(&topics)?.into_iter().zip(subscribers) {
        rig.groups.push(Group::new(vec![publisher], vec![subscriber]));
    }
    both_paces(&mut rig, setting, &format!("pairs {n}, {}", bytes(size)), size, FIXED_DELIVERIES_PER_SECOND)
}

/// Twenty subscribers, 1 KiB at 2 000 messages/s, with and without one of them that stops reading.
pub fn stalled(setting: &Setting, subject: Subject, with_one: bool) -> io::Result<Vec<Row>> {
    let mut rig = Rig::fanout(setting, subject, 20, &Payload::text(1024), Queues::Default, false)?;
    let name = format!("stalled: {} of 20", if with_one { "one" } else { "none" });
    let pace = Pace::Fixed { messages_per_second: 2000.0 };
    // Warm before memory is read: what grows later is the stalled subscriber's.
    let _warm = rig.window(setting, pace)?;
    let rss = rig.broker.rss_bytes()?;
    let Some(group) = rig.groups.pop() else { return Ok(Vec::new()) };
    let mut subscribers = group.subscribers;
    // In both cases nineteen are measured.
    let last = subscribers.pop();
    if let Some(last) = last.filter(|_| with_one) {
        rig.swarm.stall(last)?;
    }
    rig.groups = vec![Group::new(group.publishers, subscribers)];
    rig.settle();
    let long =
        Setting { warm_up: Duration::from_secs(2), measured: Duration::from_secs(8), ..setting.clone() };
    let mut row = rig.row(&long, name, pace, &[])?;
    let growth = rig.broker.rss_bytes()?.saturating_sub(rss);
    row.figures.push(("rss_growth_bytes", growth as f64));
    Ok(vec![row])
}

/// 1000 wildcard filters on 100 connections; 10 000 topics, each matched by ten of the filters.
pub fn wildcards(setting: &Setting, subject: Subject) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    let filters = |index: usize| (0..10).map(|n| wildcard(index / 10, index % 10 * 10 + n)).collect();
    let subscribers = rig.subscribers(100, filters, false)?;
    let mut publisher = rig.publisher("wild", 0)?;
    for n in 0..10_000 {
        // A stride over all topics, so that neighbours in time are not neighbours in the tree.
        let topic = n * 7919 % 10_000;
        let (site, device) = (topic / 100, topic % 100);
        publisher.frames.push(rig.payload.publish(
            subject.protocol,
            &format!("wild/{site}/{device}/temp"),
            rig.qos,
        ));
        let hears = |variant: usize| {
            let which = if variant < 5 { site } else { device };
            variant * 10 + which / 10
        };
        publisher.receivers.push((0..10).map(hears).collect());
    }
    rig.groups = vec![Group::new(vec![publisher], subscribers)];
    greet(&mut rig.swarm, &mut rig.groups)?;
    Ok(vec![rig.row(setting, "wildcards: 1000 filters, 10000 topics".to_owned(), credit(64), &[])?])
}

/// Connections with one subscription each and no traffic, then after a few messages to each.
pub fn idle(setting: &Setting, subject: Subject) -> io::Result<Vec<Row>> {
    let n = setting.idle_connections;
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    let publisher = rig.publisher("load/all", 1)?;
    let _settled = rig.settled_rss()?;
    let before = rig.settled_rss()?;
    let subscribers = rig.subscribers(n, |_| vec!["load/all".to_owned()], false)?;
    let idle = rig.settled_rss()?;
    rig.groups = vec![Group::new(vec![publisher], subscribers)];
    greet(&mut rig.swarm, &mut rig.groups)?;
    let short = Setting { warm_up: Duration::ZERO, measured: Duration::from_secs(1), ..setting.clone() };
    let _window = rig.window(&short, Pace::Fixed { messages_per_second: 5.0 })?;
    let after = rig.settled_rss()?;
    let each = |rss: u64| (rss as f64 - before as f64) / n as f64;
    let figures = vec![
        ("idle_bytes_per_connection", each(idle)),
        ("after_traffic_bytes_per_connection", each(after)),
        ("deliveries_each", rig.swarm.deliveries as f64 / n as f64),
    ];
    Ok(vec![Row { scenario: format!("idle, {n} connections"), subject: subject.name(), figures }])
}

/// The `which`-th of a hundred filters in one of ten shapes: five by site, five by device.
fn wildcard(variant: usize, which: usize) -> String {
    match variant {
        0 => format!("wild/{which}/#"),
        1 => format!("wild/{which}/+/temp"),
        2 => format!("wild/{which}/+/#"),
        3 => format!("+/{which}/+/temp"),
        4 => format!("+/{which}/#"),
        5 => format!("wild/+/{which}/temp"),
        6 => format!("wild/+/{which}/#"),
        7 => format!("wild/+/{which}/+"),
        8 => format!("+/+/{which}/temp"),
        _ => format!("+/+/{which}/#"),
    }
}

fn both_paces(
    rig: &mut Rig,
    setting: &Setting,
    name: &str,
    size: usize,
    per_second: f64,
) -> io::Result<Vec<Row>> {
    greet(&mut rig.swarm, &mut rig.groups)?;
    let saturation = rig.row(setting, format!("{name}, saturation"), credit(size), &[])?;
    let pace = Pace::Fixed { messages_per_second: per_second };
    let fixed = rig.row(setting, format!("{name}, 20 000/s"), pace, &[])?;
    Ok(vec![saturation, fixed])
}
