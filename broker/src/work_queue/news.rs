//! Which queues have something to dispatch, for the one task that does it. A leaf: nothing is locked under it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::WorkQueue;

/// See the file's first lines.
#[derive(Debug, Default)]
pub struct News(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listed: Vec<Arc<WorkQueue>>,
    waker: Option<Waker>,
}

impl News {
    /// A queue has something, and is not listed.
    pub(super) fn add(&self, queue: &Arc<WorkQueue>) {
        let waker = {
            let mut state = self.0.lock();
            state.listed.push(Arc::clone(queue));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// All that are listed. They may be listed again from here on.
    pub(super) fn take(&self) -> Vec<Arc<WorkQueue>> {
        let listed = std::mem::take(&mut self.0.lock().listed);
        for queue in &listed {
            queue.unlist();
        }
        listed
    }

    /// Waits until a queue is listed. Cancel safe.
    pub(super) async fn any(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if !state.listed.is_empty() {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
