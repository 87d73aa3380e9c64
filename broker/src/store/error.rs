//! What goes wrong in a store, by whose fault it is.

use std::io;
use std::path::PathBuf;

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The operator: two programs on one directory.
    #[error("the store in {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The operator: an older program on a newer store.
    #[error("the store in {} has the format {found}, this program knows {known}", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format version.
        found: u8,
        /// The newest that this program reads.
        known: u8,
    },
    /// The operator: not a place for a store.
    #[error("{}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk.
    #[error("the disk of the store fails: {reason}")]
    Io {
        /// Of the operating system.
        kind: io::ErrorKind,
        /// What was tried and what came of it.
        reason: String,
    },
    /// The disk, or a fault of the database.
    #[error("the store is damaged: {reason}")]
    Damaged {
        /// What does not hold.
        reason: String,
    },
    /// A commit failed and none has worked since.
    #[error("the store is failing")]
    Failing,
    /// More is waiting to be committed than may wait, or the store has grown to its limit.
    #[error("the store is full")]
    Full,
    /// The writer was stopped.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// An error of the operating system, and what was tried.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::Io { kind: error.kind(), reason: format!("{what}: {error}") }
    }
}

impl From<::fjall::Error> for StoreError {
    fn from(error: ::fjall::Error) -> Self {
        match error {
            ::fjall::Error::Io(error) => Self::io("fjall", &error),
            ::fjall::Error::Storage(::fjall::LsmError::Io(error)) => Self::io("fjall", &error),
            // A write or an fsync failed before, maybe of a thread in the background.
            ::fjall::Error::Poisoned => {
                Self::Io { kind: io::ErrorKind::Other, reason: "an earlier write failed".to_owned() }
            }
            other => Self::Damaged { reason: other.to_string() },
        }
    }
}
