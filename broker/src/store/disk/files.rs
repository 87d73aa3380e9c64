//! The directory of a store: who may use it, who may read it, which format it has.
//!
//! ```text
//!   <store.path>/lock     locked for as long as a process has the store open
//!                format   the format version as text
//!                db/      fjall's files
//!                torn     the last end of a journal that was cut off
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;

use crate::store::StoreError;

/// The version of keys, records and their places. A newer one is refused.
pub const FORMAT: u8 = 1;

/// A directory that nobody else has open.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Unlocked when it is closed, also by a crash.
    lock: File,
}

impl Directory {
    /// Makes or takes it. Everything that this process makes from here on is for its user alone (SEC-23): fjall makes
    /// files as it needs them, and only the process's mask reaches those.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let _before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| StoreError::io(&format!("cannot make {}", path.display()), &error))?;
        let directory = Self { path: path.to_owned(), lock: lock(path)? };
        directory.check_format()?;
        directory.protect().map_err(|error| StoreError::io("cannot protect the store", &error))?;
        directory.clear_unfinished().map_err(|error| StoreError::io("cannot prepare the store", &error))?;
        Ok(directory)
    }

    /// Somebody else may have it.
    pub(super) fn unlock(&self) {
        // Closing unlocks it at the latest.
        let _ = self.lock.unlock();
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where fjall's files are.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// For the end of a journal that was cut off.
    pub(super) fn torn(&self) -> PathBuf {
        self.path.join("torn")
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let file = self.path.join("format");
        let found = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.write_format(&file),
            Err(error) => return Err(StoreError::io("cannot read the store's format", &error)),
        };
        match found.trim().parse() {
            // Cut off before it was written: nothing was stored.
            Err(_) if found.is_empty() => self.write_format(&file),
            Err(_) => Err(StoreError::Directory { path: file, reason: "not a format version".to_owned() }),
            Ok(FORMAT) => Ok(()),
            Ok(found) => Err(StoreError::Newer { path: self.path.clone(), found, known: FORMAT }),
        }
    }

    fn write_format(&self, file: &Path) -> Result<(), StoreError> {
        if self.database().exists() {
            let reason = "a store without its format version".to_owned();
            return Err(StoreError::Directory { path: self.path.clone(), reason });
        }
        let write = || {
            let mut format = File::create(file)?;
            writeln!(format, "{FORMAT}")?;
            format.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| StoreError::io("cannot write the store's format", &error))
    }

    /// SEC-23, for what was there before: copied by an operator, say.
    fn protect(&self) -> std::io::Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(0o700))?;
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
                if metadata.permissions().mode() & 0o077 != 0 && !metadata.is_symlink() {
                    fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
                }
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// A crash while fjall made its files leaves some without its version marker, and fjall does not go on with them.
    /// Nothing can have been committed: the marker is on the disk before a database opens.
    fn clear_unfinished(&self) -> std::io::Result<()> {
        let marker = self.database().join("version");
        let is_finished = fs::metadata(marker).is_ok_and(|metadata| metadata.len() > 0);
        if !is_finished && self.database().exists() {
            fs::remove_dir_all(self.database())?;
        }
        Ok(())
    }
}

/// Waits a little: a process that was killed may not have gone yet.
fn lock(path: &Path) -> Result<File, StoreError> {
    let error = |error| StoreError::io("cannot lock the store", &error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path.join("lock")).map_err(error)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_WAIT / 10)
            }
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(cause)) => return Err(error(cause)),
        }
    }
}

/// How many bytes follow in a file, but for the zeros at its end: those are allocated, not written.
pub(super) fn nonzero_len(file: &mut impl Read) -> std::io::Result<u64> {
    let (mut read, mut nonzero) = (0_u64, 0_u64);
    let (mut buffer, zeros) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            return Ok(nonzero);
        }
        let bytes = buffer.get(..len).unwrap_or_default();
        if Some(bytes) != zeros.get(..len)
            && let Some(last) = bytes.iter().rposition(|byte| *byte != 0)
        {
            nonzero = read + u64::try_from(last + 1).unwrap_or(u64::MAX);
        }
        read += u64::try_from(len).unwrap_or(u64::MAX);
    }
}

const LOCK_WAIT: Duration = Duration::from_millis(300);
