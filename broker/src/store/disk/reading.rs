//! Pages of queues, and what happens to records that cannot be read: they are put aside with their key, so that
//! somebody may look at them, and the rest goes on.

use fjall::{Readable as _, Slice};

use super::Inner;
use super::keys::{self, Space};
use super::state::StoredReference;
use super::tables::Put;
use crate::store::record::Record;
use crate::store::{BodyId, Page, PageLimits, PublicationRecord, QueuedMessage, SessionKey, StoreError};

/// A record of a queue that leads nowhere.
struct Unreadable {
    seq: u64,
    reference: Slice,
    /// The body, when it is that which cannot be read.
    body: Option<(BodyId, Slice)>,
}

impl Inner {
    pub(super) fn load_queue(
        &self,
        session: SessionKey,
        from_seq: u64,
        limits: PageLimits,
    ) -> Result<Page, StoreError> {
        let mut page = Page { next_seq: from_seq, is_last: true, ..Page::default() };
        let queue = self.state.read().sessions.get(&session).copied();
        let Some(queue) = queue.filter(|queue| queue.count > 0) else { return Ok(page) };
        let mut unreadable = Vec::new();
        {
            let tables = self.tables()?;
            // Queue and bodies as they are at one moment.
            let snapshot = tables.database().snapshot();
            let from = keys::queue(session, from_seq.max(queue.first_seq));
            let mut bytes = 0;
            for guard in snapshot.range(tables.keyspace(Space::Queue), from..=keys::queue(session, u64::MAX))
            {
                let (key, value) = guard.into_inner()?;
                let Some((_, seq)) = keys::parse_queue(&key) else { continue };
                let Ok(StoredReference { reference, .. }) = StoredReference::decode(&value) else {
                    unreadable.push(Unreadable { seq, reference: value, body: None });
                    continue;
                };
                bytes += usize::try_from(reference.size_bytes).unwrap_or(usize::MAX);
                if !page.messages.is_empty()
                    && (page.messages.len() >= limits.count_max || bytes > limits.bytes_max)
                {
                    page.is_last = false;
                    break;
                }
                let publication = match reference.received {
                    Some(_) => None,
                    None => {
                        let body =
                            snapshot.get(tables.keyspace(Space::Bodies), keys::body(reference.body))?;
                        let Some(Ok(publication)) = body.as_deref().map(PublicationRecord::decode) else {
                            let body = body.map(|body| (reference.body, body));
                            unreadable.push(Unreadable { seq, reference: value, body });
                            continue;
                        };
                        Some(publication)
                    }
                };
                page.messages.push(QueuedMessage { seq, reference, publication });
                page.next_seq = seq.saturating_add(1);
            }
        }
        page.quarantined = unreadable.len();
        if !unreadable.is_empty() {
            self.put_queue_aside(session, unreadable)?;
        }
        Ok(page)
    }

    fn put_queue_aside(&self, session: SessionKey, unreadable: Vec<Unreadable>) -> Result<(), StoreError> {
        // No commit meanwhile: the state changes with what is stored.
        let _writing = self.writing.lock();
        let tables = self.tables()?;
        let mut next_quarantine = self.state.read().next_quarantine;
        let mut puts = Vec::new();
        let mut gone = Vec::new();
        for Unreadable { seq, reference, body } in unreadable {
            let key = keys::queue(session, seq);
            if tables.get(Space::Queue, &key)?.is_none() {
                continue;
            }
            let size_bytes =
                StoredReference::decode(&reference).map_or(0, |stored| stored.reference.size_bytes);
            gone.push((seq, size_bytes));
            puts.extend(put_aside(Space::Queue, &key, &reference, &mut next_quarantine));
            if let Some((id, body)) = body {
                puts.extend(put_aside(Space::Bodies, &keys::body(id), &body, &mut next_quarantine));
            }
        }
        tables.commit_unsynced(&puts)?;
        let mut state = self.state.write();
        state.next_quarantine = next_quarantine;
        if let Some(queue) = state.sessions.get_mut(&session) {
            gone.into_iter().for_each(|(seq, size_bytes)| queue.remove(seq, size_bytes));
        }
        drop(state);
        self.warn_once("records of the store could not be read and were put aside");
        Ok(())
    }
}

/// Moves a record away. Its key is inside, since a key may be as long as keys may be.
pub(super) fn put_aside(space: Space, key: &[u8], value: &[u8], number: &mut u64) -> [Put; 2] {
    let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let aside = [&[space as u8], &key_len.to_be_bytes()[..], key, value].concat();
    let place = number.to_be_bytes();
    *number = number.saturating_add(1);
    [Put::remove(space, key), Put::insert(Space::Quarantine, &place, aside)]
}
