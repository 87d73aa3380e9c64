//! The thread that reads pages of queues, so that neither a commit nor a client's task waits for it. The writer passes
//! requests on behind the commits that they depend on; there is at most one for each queue at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::{Page, PageLimits, SessionKey, Store, StoreError};

/// A page that somebody waits for.
pub(super) struct Load {
    pub(super) session: SessionKey,
    pub(super) from_seq: u64,
    pub(super) limits: PageLimits,
    pub(super) deliver: Box<dyn FnOnce(Result<Page, StoreError>) + Send>,
}

pub(super) struct Loader {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    loads: VecDeque<Load>,
    is_stopped: bool,
}

impl Loader {
    pub(super) fn start(store: Arc<dyn Store>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("store-loader".to_owned()).spawn(move || own.run(&*store))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn push(&self, load: Load) {
        self.shared.queue.lock().loads.push_back(load);
        self.shared.work.notify_one();
    }

    /// Reads what was asked for, then ends the thread.
    pub(super) fn stop(&self) {
        self.shared.queue.lock().is_stopped = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has been printed, and there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, store: &dyn Store) {
        while let Some(load) = self.next() {
            (load.deliver)(store.load_queue(load.session, load.from_seq, load.limits));
        }
    }

    fn next(&self) -> Option<Load> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(load) = queue.loads.pop_front() {
                return Some(load);
            }
            if queue.is_stopped {
                return None;
            }
            self.work.wait(&mut queue);
        }
    }
}
