//! `tidegate check`: what the operator reads before the broker runs. Opens no port.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Anonymous, ByteSize, Config, memory_bytes};
use crate::auth::scram::Users;

/// Checks `path` (or what `serve` would read without one) and tells the outcome: "ok", the memory it allows and hints,
/// or every problem. With `effective` all values follow as TOML; the lines before them are comments then, so that the
/// whole output parses. Returns the exit code.
pub fn check(
    path: Option<&Path>,
    effective: bool,
    env: impl Iterator<Item = (String, String)>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let loaded = Config::load(path, env).and_then(|(config, source)| {
        let toml = config.to_toml()?;
        Ok((config, source, toml))
    });
    let (config, source, toml) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(1);
        }
    };
    let mark = if effective { "# " } else { "" };
    writeln!(out, "{mark}ok: {source}")?;
    writeln!(out, "{mark}{}", memory_line(&config))?;
    writeln!(out, "{mark}{}", store_line(&config))?;
    for hint in hints(&config) {
        writeln!(out, "{mark}hint: {hint}")?;
    }
    if effective {
        write!(out, "\n{toml}")?;
    }
    out.flush()?;
    Ok(0)
}

/// What queues may take at their limits, in one line (DESIGN §6).
#[must_use]
pub fn memory_line(config: &Config) -> String {
    let max_bytes = config.queue.max_bytes;
    let message = config.websocket.max_message_size;
    let client_bytes = max_bytes.0.saturating_mul(2).saturating_add(message.0);
    let total_bytes = config.queue_total_bytes();
    format!(
        "memory: per client at most 2 × {max_bytes} queued + one message of {message} = {}; whole broker {} of {}; \
         {} clients can be full at once",
        in_words(client_bytes),
        in_words(total_bytes),
        in_words(memory_bytes()),
        total_bytes / client_bytes.max(1),
    )
}

/// What the store may take on the disk and in memory.
#[must_use]
pub fn store_line(config: &Config) -> String {
    let store = &config.store;
    let Some(path) = store.path.as_deref() else {
        return "store: none; sessions and retained messages end with the broker".to_owned();
    };
    let disk =
        store.max_bytes.map_or_else(|| "as much as there is".to_owned(), |bytes| format!("at most {bytes}"));
    // What waits, and what is being committed meanwhile.
    let memory_bytes = (2 * store.max_pending_bytes.0)
        .saturating_add(store.block_cache.0)
        .saturating_add(STORE_BUFFER_BYTES);
    format!(
        "store: in {}, {disk} on the disk; in memory at most 2 × {} pending + {} block cache + {} not yet in \
         tables = {}",
        path.display(),
        store.max_pending_bytes,
        store.block_cache,
        ByteSize(STORE_BUFFER_BYTES),
        in_words(memory_bytes),
    )
}

/// What the database keeps of its journal, which is no longer than this.
const STORE_BUFFER_BYTES: usize = 64 << 20;

/// What is allowed and perhaps not meant.
#[must_use]
pub fn hints(config: &Config) -> Vec<String> {
    let mut hints = Vec::new();
    for listener in config.listener.iter().filter(|listener| !listener.is_loopback()) {
        let name = &listener.name;
        let who = match config.auth.anonymous {
            Anonymous::Always => "lets everybody in, without a login and without TLS",
            Anonymous::Loopback | Anonymous::Never => {
                "has no TLS, so what clients say can be read on the way"
            }
        };
        hints.push(format!("listener {name:?} on {} {who}; put a proxy with TLS before it", listener.bind));
        if listener.max_connections_per_ip.is_none() {
            hints.push(format!(
                "listener {name:?} has no max_connections_per_ip; on the open internet try 100"
            ));
        }
        if listener.accept_rate.is_none() {
            hints.push(format!("listener {name:?} has no accept_rate; on the open internet try 1000"));
        }
    }
    login_hints(config, &mut hints);
    if let Some(bind) = config.admin.bind.filter(|bind| !bind.ip().to_canonical().is_loopback()) {
        hints.push(format!("admin.bind {bind} is open to other machines, and /metrics needs no login"));
    }
    let one = config.queue.max_bytes.0.saturating_mul(2).saturating_add(config.websocket.max_message_size.0);
    if config.queue_total_bytes() < one {
        hints.push("queue.total_bytes is less on this machine than one client may hold".to_owned());
    }
    hints
}

/// Who cannot connect, and who can read too much.
fn login_hints(config: &Config, hints: &mut Vec<String>) {
    let has_login = config.listener.iter().any(|listener| config.has_login(listener));
    if config.auth.anonymous == Anonymous::Never && !has_login {
        hints.push(
            "auth.anonymous is \"never\" and there is no authenticator: no client can connect".to_owned(),
        );
    }
    let Some(file) = config.auth.scram_file.as_deref() else { return };
    if !has_login {
        hints.push("auth.scram_file is for MQTT 5 clients, and no listener speaks MQTT 5".to_owned());
    }
    if Users::load(file).is_ok_and(|users| users.is_empty()) {
        hints.push(format!("{} names no user: nobody can log in with it", file.display()));
    }
    // Whoever has the keys in it can try passwords at leisure, and pass for this broker (RFC 5802 §9).
    if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        hints.push(format!("{0} is open to every user of this machine; try chmod 600 {0}", file.display()));
    }
}

/// One decimal is enough to read.
fn in_words(bytes: usize) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            let tenths = (bytes >> (shift - 10)).saturating_mul(10) >> 10;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                tenth => format!("{}.{tenth} {unit}", tenths / 10),
            };
        }
    }
    ByteSize(bytes).to_string()
}
