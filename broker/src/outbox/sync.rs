//! The outbox's locks and flags, which loom replaces in the model test (`make loom`).

#[cfg(not(outbox_loom))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, fence};
    pub(crate) use std::thread_local;

    /// A short lock that knows no poisoning.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, T> {
            self.0.lock()
        }

        pub(crate) fn try_lock(&self) -> Option<parking_lot::MutexGuard<'_, T>> {
            self.0.try_lock()
        }
    }
}

#[cfg(outbox_loom)]
mod real {
    pub(crate) use loom::sync::atomic::{AtomicBool, fence};
    // Loom's threads share one of the system's, so the standard one would be shared too.
    pub(crate) use loom::thread_local;

    /// Loom's, with the same words.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    #[expect(clippy::unwrap_used, reason = "a panicking model has failed already")]
    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

pub(crate) use real::{AtomicBool, Mutex, fence, thread_local};
