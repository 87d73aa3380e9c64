//! `tidegate store check | stats | backup`: what operators ask of a store, with or without a broker that runs on it.
//!
//! A broker has its store's directory for itself, so a back-up beside it is made by the broker: it is asked through
//! its admin listener.

use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::disk::{DiskSettings, DiskStore};
use crate::store::{Store as _, StoreError};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// Read every record, and hold it against what it belongs to.
    Check,
    /// Sessions, messages and bytes.
    Stats,
    /// A copy in this directory.
    Backup(PathBuf),
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreCommandError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A store that does not exist is not made.
    #[error("there is no store in {}", .0.display())]
    Absent(PathBuf),
    /// A broker runs, and cannot be asked.
    #[error("a broker uses the store, and has no admin listener to ask it for a back-up (admin.bind)")]
    NoAdmin,
    /// A broker runs, and did not do it.
    #[error("the broker on {admin} made no back-up: {answer}")]
    Refused {
        /// `admin.bind`.
        admin: SocketAddr,
        /// What it said.
        answer: String,
    },
    /// What was to be said could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Does it and tells the outcome. `Ok(false)`: the store is damaged.
pub fn run(
    command: &StoreCommand,
    path: &Path,
    admin: Option<SocketAddr>,
    out: &mut dyn Write,
) -> Result<bool, StoreCommandError> {
    if !path.join("format").exists() {
        return Err(StoreCommandError::Absent(path.to_owned()));
    }
    let store = match (DiskStore::open(path, DiskSettings::default()), command) {
        (Err(StoreError::Locked { .. }), StoreCommand::Backup(directory)) => {
            ask(admin.ok_or(StoreCommandError::NoAdmin)?, directory)?;
            writeln!(out, "the broker has made a back-up in {}", directory.display())?;
            return Ok(true);
        }
        (store, _) => store?,
    };
    match command {
        StoreCommand::Check => {
            let report = store.check()?;
            write!(out, "{report}")?;
            Ok(report.is_sound())
        }
        StoreCommand::Stats => {
            write!(out, "{}", store.stats()?)?;
            Ok(true)
        }
        StoreCommand::Backup(directory) => {
            store.backup(directory)?;
            writeln!(out, "back-up in {}", directory.display())?;
            Ok(true)
        }
    }
}

/// `POST /store/backup?dir=…`. The broker may run in another directory, so it is told the whole path.
fn ask(admin: SocketAddr, directory: &Path) -> Result<(), StoreCommandError> {
    let refused = |answer: String| StoreCommandError::Refused { admin, answer };
    let directory = std::path::absolute(directory)?;
    let request = format!(
        "POST /store/backup?dir={} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        escape(&directory)
    );
    let mut answer = String::new();
    let mut exchange = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&admin, CONNECT_WAIT)?;
        stream.write_all(request.as_bytes())?;
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(())
    };
    exchange().map_err(|error| refused(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(refused(format!("{status} {}", body.trim()))),
        None => Err(refused("it does not speak HTTP".to_owned())),
    }
}

/// RFC 3986 §2.1.
fn escape(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte))
            }
            // Writing to a text cannot fail.
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
    text
}

const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_query_is_escaped() {
        for (path, text) in [("/a/b-1.2_~", "/a/b-1.2_~"), ("/a b&c=ü", "/a%20b%26c%3D%C3%BC")] {
            assert_eq!(escape(Path::new(path)), text);
        }
    }
}
