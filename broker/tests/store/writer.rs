//! What a writer makes of submissions: order, tickets, refusals, and a store that fails for a while.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tidegate::store::memory::MemoryStore;
use tidegate::store::*;

use crate::support::*;

const ANNA: SessionKey = SessionKey(1);

type Slow = Faulty<MemoryStore>;

/// A writer on a store in memory with one session.
fn start(settings: Settings) -> (Arc<Slow>, Writer) {
    let store = Faulty::new(MemoryStore::new());
    store.store.commit(&[Change::PutSession(ANNA, session("anna"))]).unwrap();
    let writer = Writer::start(Arc::clone(&store) as Arc<dyn Store>, settings, 1).unwrap();
    (store, writer)
}

fn publish(writer: &Writer, number: u64) -> Result<Ticket, StoreError> {
    writer.submit(message(ANNA, number).to_vec())
}

/// Something comes when the ticket is done.
fn done(writer: &Writer, ticket: Ticket) -> Receiver<()> {
    let (sender, receiver) = channel();
    writer.when_done(ticket, Arc::new(move || sender.send(()).unwrap()));
    receiver
}

/// What became of it, as soon as it did.
fn wait(writer: &Writer, ticket: Ticket) -> Result<(), StoreError> {
    done(writer, ticket).recv_timeout(Duration::from_secs(20)).unwrap();
    writer.outcome(ticket).unwrap()
}

fn payloads(store: &Slow) -> Vec<String> {
    contents(&store.store).0.payloads(ANNA)
}

#[test]
fn a_ticket_is_open_until_its_commit_is_done() {
    let (store, writer) = start(Settings::default());
    let gate = store.gate.lock().unwrap();
    let ticket = publish(&writer, 1).unwrap();
    let woken = done(&writer, ticket);
    assert_eq!(writer.outcome(ticket), None);
    assert!(woken.try_recv().is_err());
    drop(gate);
    woken.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(writer.outcome(ticket), Some(Ok(())));
    assert_eq!(payloads(&store), ["1"]);
    // Once: the waiter with its sender is gone.
    assert!(woken.recv().is_err());
    assert_eq!(wait(&writer, ticket), Ok(()), "whoever asks late is told at once");
    assert_eq!(writer.outcome(Ticket::DONE), Some(Ok(())));
    writer.stop();
}

#[test]
fn what_came_while_the_disk_was_busy_is_one_batch() {
    for (sync, commits) in [(Sync::Group, 2), (Sync::Os, 2), (Sync::Always, 11)] {
        let (store, writer) = start(Settings { sync, ..Settings::default() });
        let gate = store.gate.lock().unwrap();
        let first = publish(&writer, 1).unwrap();
        // The thread has taken the first once nothing is pending.
        while writer.gauges().pending_bytes > 0 {
            std::thread::yield_now();
        }
        let later: Vec<_> = (2..=11).map(|number| publish(&writer, number).unwrap()).collect();
        let last = later[9];
        drop(gate);
        assert_eq!((wait(&writer, first), wait(&writer, last)), (Ok(()), Ok(())));
        assert_eq!(payloads(&store).len(), 11);
        assert_eq!((store.commits(), writer.gauges().submissions), (commits, 11), "{sync:?}");
        writer.stop();
    }
}

#[test]
fn a_failed_commit_fails_its_tickets_alone() {
    for sync in [Sync::Group, Sync::Always] {
        let (store, writer) = start(Settings { sync, ..Settings::default() });
        assert_eq!(publish(&writer, 1).map(|ticket| wait(&writer, ticket)), Ok(Ok(())));
        store.fail(1);
        let failed = publish(&writer, 2).unwrap();
        assert!(matches!(wait(&writer, failed), Err(StoreError::Io { .. })));
        assert!(writer.gauges().is_failing);
        assert_eq!(publish(&writer, 3), Err(StoreError::Failing));
        // What only forgets is taken, and tells when the store works again.
        let probe = writer.submit(vec![Change::Dequeue(ANNA, 1)]).unwrap();
        assert_eq!(wait(&writer, probe), Ok(()));
        assert!(!writer.gauges().is_failing);
        assert_eq!(publish(&writer, 4).map(|ticket| wait(&writer, ticket)), Ok(Ok(())));
        assert_eq!(payloads(&store), ["4"]);
        assert!(matches!(writer.outcome(failed), Some(Err(StoreError::Io { .. }))), "it stays failed");
        writer.stop();
    }
}

#[test]
fn what_only_forgets_is_done_after_a_failure() {
    for sync in [Sync::Group, Sync::Always] {
        let (store, writer) = start(Settings { sync, ..Settings::default() });
        for number in 1..=3 {
            assert_eq!(publish(&writer, number).map(|ticket| wait(&writer, ticket)), Ok(Ok(())));
        }
        store.fail(2);
        let mut changes = message(ANNA, 4).to_vec();
        changes.push(Change::Dequeue(ANNA, 1));
        let ticket = writer.submit(changes).unwrap();
        assert!(wait(&writer, ticket).is_err());
        let ticket = writer.submit(vec![Change::Dequeue(ANNA, 2)]).unwrap();
        assert!(wait(&writer, ticket).is_err(), "the first attempt fails too");
        assert_eq!(writer.gauges().kept, 2);
        let probe = writer.submit(Vec::new()).unwrap();
        assert_eq!(wait(&writer, probe), Ok(()));
        assert_eq!((payloads(&store), writer.gauges().kept), (vec!["3".to_owned()], 0));
        writer.stop();
    }
}

#[test]
fn it_recovers_by_itself() {
    let (store, writer) = start(Settings::default());
    store.fail(3);
    let failed = publish(&writer, 1).unwrap();
    assert!(wait(&writer, failed).is_err());
    // Nobody submits anything: the thread tries by itself.
    while writer.gauges().is_failing {
        std::thread::yield_now();
    }
    assert_eq!((store.commits(), writer.gauges().failures), (4, 3));
    assert_eq!(publish(&writer, 2).map(|ticket| wait(&writer, ticket)), Ok(Ok(())));
    writer.stop();
}

#[test]
fn more_than_may_wait_is_refused() {
    let (store, writer) = start(Settings { pending_bytes_max: 10_000, ..Settings::default() });
    let gate = store.gate.lock().unwrap();
    let taken = (1..).take_while(|number| publish(&writer, *number).is_ok()).count();
    assert!(taken > 1);
    assert_eq!(publish(&writer, 1_000), Err(StoreError::Full));
    assert!(writer.gauges().pending_bytes <= 10_000);
    let removal = writer.submit(vec![Change::Dequeue(ANNA, 1)]).unwrap();
    drop(gate);
    assert_eq!(wait(&writer, removal), Ok(()));
    assert_eq!(payloads(&store).len(), taken - 1);
    writer.stop();
}

#[test]
fn a_full_store_takes_where_a_session_stands_and_finds_room_by_itself() {
    let (store, writer) = start(Settings { disk_bytes_max: 1 << 40, ..Settings::default() });
    store.foreign_bytes.store(1 << 41, Ordering::SeqCst);
    assert!(becomes(|| writer.admit() == Err(StoreError::Full), || _ = publish(&writer, 1)));
    let stands = writer.submit(vec![Change::PutSession(ANNA, session("anna"))]).unwrap();
    assert_eq!(wait(&writer, stands), Ok(()));
    // It looks once more, finds nothing to do, and nobody brings work.
    std::thread::sleep(Duration::from_millis(1500));
    store.foreign_bytes.store(0, Ordering::SeqCst);
    assert!(becomes(|| writer.admit().is_ok(), || ()));
    writer.stop();
}

/// Whether that holds within 20 s.
fn becomes(mut holds: impl FnMut() -> bool, mut meanwhile: impl FnMut()) -> bool {
    (0..2000).any(|_| {
        meanwhile();
        std::thread::sleep(Duration::from_millis(10));
        holds()
    })
}

#[test]
fn a_page_is_read_behind_what_was_submitted() {
    let (store, writer) = start(Settings::default());
    let gate = store.gate.lock().unwrap();
    for number in 1..=3 {
        publish(&writer, number).unwrap();
    }
    let (sender, receiver) = channel();
    writer.load(ANNA, 2, PAGE, Box::new(move |page| sender.send(page).unwrap()));
    assert!(receiver.try_recv().is_err());
    drop(gate);
    let page = receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
    assert_eq!((seqs, page.next_seq, page.is_last), (vec![2, 3], 4, true));
    writer.stop();
}

#[test]
fn stopping_commits_and_delivers_what_was_asked_for() {
    let (store, writer) = start(Settings::default());
    let gate = store.gate.lock().unwrap();
    let tickets: Vec<_> = (1..=3).map(|number| publish(&writer, number).unwrap()).collect();
    let (sender, receiver) = channel();
    let late = sender.clone();
    writer.load(ANNA, 0, PAGE, Box::new(move |page| sender.send(page).unwrap()));
    drop(gate);
    writer.stop();
    assert_eq!(payloads(&store), ["1", "2", "3"]);
    assert_eq!(receiver.try_recv().unwrap().unwrap().messages.len(), 3);
    assert!(tickets.into_iter().all(|ticket| writer.outcome(ticket) == Some(Ok(()))));
    assert_eq!(publish(&writer, 4), Err(StoreError::Closed));
    writer.load(ANNA, 0, PAGE, Box::new(move |page| late.send(page).unwrap()));
    assert_eq!(receiver.try_recv().unwrap(), Err(StoreError::Closed));
    writer.stop();
}

#[test]
fn many_threads_get_their_own_answers_in_their_own_order() {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    let (store, writer) = start(Settings::default());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let writer = writer.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let ticket = publish(&writer, 1 + thread * EACH + number).unwrap();
                    if number % 3 == 0 {
                        assert_eq!(wait(&writer, ticket), Ok(()));
                    }
                }
            });
        }
    });
    writer.stop();
    assert_eq!(u64::try_from(payloads(&store).len()), Ok(THREADS * EACH));
    assert_eq!(writer.gauges().submissions, THREADS * EACH);
}

#[test]
fn a_fault_that_ends_the_thread_leaves_nobody_waiting() {
    let (store, writer) = start(Settings::default());
    let first = publish(&writer, 1).unwrap();
    assert_eq!(wait(&writer, first), Ok(()));
    let gate = store.gate.lock().unwrap();
    store.panics.store(true, Ordering::SeqCst);
    let ticket = publish(&writer, 2).unwrap();
    let woken = done(&writer, ticket);
    drop(gate);
    woken.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(writer.outcome(ticket), Some(Err(StoreError::Closed)));
    assert_eq!(writer.outcome(first), Some(Ok(())));
    assert_eq!(publish(&writer, 3), Err(StoreError::Closed));
    writer.stop();
}

#[test]
fn bodies_get_numbers_that_nobody_had() {
    let (_, writer) = start(Settings::default());
    assert_eq!([writer.next_body(), writer.clone().next_body()], [BodyId(1), BodyId(2)]);
    writer.stop();
}
