//! The real broker in this process: the one place that builds it.

use std::path::Path;

use tidegate::assembly::{Running, StartError};
use tidegate::config::Config;

/// A broker that has started, and where.
pub async fn start() -> (Running, String) {
    let server = start_at("127.0.0.1:0").await.unwrap();
    let (_, address) = server.listeners().next().unwrap();
    let url = format!("ws://{address}/ws");
    (server, url)
}

/// Another broker in the place of one that has stopped.
pub async fn restart(url: &str) -> Running {
    let address = url.strip_prefix("ws://").unwrap().strip_suffix("/ws").unwrap();
    // The listener of the old one is closed by a task of its own.
    loop {
        match start_at(address).await {
            Ok(server) => return server,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn start_at(address: &str) -> Result<Running, StartError> {
    let file = format!(
        "[[listener]]\nbind = \"{address}\"\npaths = [\"/ws\"]\n[admin]\nbind = \"none\"\n[store]\npath = \"\"\n"
    );
    let config = Config::from_text(Path::new("test.toml"), &file, std::iter::empty()).unwrap();
    Running::start(&config).await
}
