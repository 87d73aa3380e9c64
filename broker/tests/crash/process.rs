//! The broker as a process of its own: started with a store in a folder, killed as `kill -9` does.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running broker; killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts one on this folder's store and waits until it listens. What it logs goes to the test's stderr.
    pub(crate) fn start(folder: &Path, sync: &str) -> Self {
        let config = folder.join("crash.toml");
        std::fs::write(&config, settings(sync)).unwrap();
        let mut command = tidegate(folder);
        command.arg("serve").arg("--config").arg(&config).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        let address = loop {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 {
                panic!("it does not start: {:?}\n{greeting}", child.wait());
            }
            if let Some((_, rest)) = line.split_once("listening on ws://") {
                break rest.split('/').next().unwrap().parse().unwrap();
            }
            greeting.push_str(&line);
        };
        // Nobody may write into a pipe without a reader.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Self { child, address }
    }

    /// SIGKILL, and waits until it is gone, so that its store is free.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "it had ended before it was killed: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with no settings of ours.
pub(crate) fn tidegate(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Queues are small, so that what waits for those who are away is read back from the disk in several pages.
fn settings(sync: &str) -> String {
    format!(
        "[[listener]]\nname = \"crash\"\nbind = \"127.0.0.1:0\"\n\
         [store]\npath = \"store\"\nsync = \"{sync}\"\n\
         [queue]\nmax_messages = 100_000\nmax_bytes = \"256 MiB\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n"
    )
}
