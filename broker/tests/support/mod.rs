//! What the tests over real sockets share: a broker on free ports, one small client for each protocol, and hard
//! limits of time. Nothing here sleeps: a test waits for what has to happen, and fails when it does not.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test helpers may panic, and each test program uses another part of them"
)]

pub mod client;
pub mod http;
pub mod mqtt;
pub mod raw;
pub mod socket;
pub mod stomp;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate::assembly::{Backend, Running};
use tidegate::config::Config;

/// The longest that anything may take. Generous, since the machine may be busy; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker in this process.
pub struct Broker {
    running: Running,
    /// The first listener.
    pub address: SocketAddr,
    /// The operator's page.
    pub admin: SocketAddr,
}

/// Waits, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("nothing came within {PATIENCE:?}: {what}"),
    }
}

/// A directory for each broker, with `TIDEGATE_TEST_STORE` set: the same has to hold with a store.
fn own_store() -> Option<PathBuf> {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    std::env::var_os("TIDEGATE_TEST_STORE")?;
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let name = format!("store-{}-{number}", std::process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Of another run with the same number.
    let _ = std::fs::remove_dir_all(&directory);
    Some(directory)
}

impl Broker {
    /// Starts with the defaults, free ports, and these lines of configuration. Lines before the first header
    /// belong to the listener. Everything is in memory, unless they say otherwise or the run is one with stores.
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, |_| ()).await
    }

    /// The same, with a last change that may go beyond what a file allows: a test does not wait for the shortest
    /// time that makes sense in practice.
    pub async fn start_with(settings: &str, change: impl FnOnce(&mut Config)) -> Self {
        let text = format!(
            "[[listener]]\nname = \"test\"\nbind = \"127.0.0.1:0\"\n{settings}\n[admin]\nbind = \"127.0.0.1:0\"\n"
        );
        let mut config = Config::from_text(Path::new("test.toml"), &text, std::iter::empty()).unwrap();
        if !settings.contains("[store]") {
            config.store.path = own_store();
        }
        change(&mut config);
        let running = Running::start(&config).await.unwrap();
        let address = running.listeners().next().unwrap().1;
        let admin = running.admin().unwrap();
        Self { running, address, admin }
    }

    /// Starts with the defaults on this store.
    pub async fn start_on(backend: Backend) -> Self {
        let text = "[[listener]]\nname = \"test\"\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n";
        let config = Config::from_text(Path::new("test.toml"), text, std::iter::empty()).unwrap();
        let running = Running::start_on(&config, backend).await.unwrap();
        let address = running.listeners().next().unwrap().1;
        let admin = running.admin().unwrap();
        Self { running, address, admin }
    }

    /// Clients that are connected now.
    pub fn clients(&self) -> usize {
        self.running.clients()
    }

    /// Ends it; gives the number of clients that did not go.
    pub async fn stop(self) -> usize {
        within("the end of the broker", self.running.stop()).await
    }

    /// One value of the Prometheus page, by its name and labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = http::get(self.admin, "/metrics").await.body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
    }

    /// Reads a value again and again until it is as expected.
    pub async fn metric_becomes(&self, name: &str, is_expected: impl Fn(u64) -> bool) -> u64 {
        within(name, async {
            loop {
                let value = self.metric(name).await;
                if is_expected(value) {
                    return value;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}
