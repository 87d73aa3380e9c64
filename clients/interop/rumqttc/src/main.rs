//! rumqttc behind one pipe, in the words of `agent.cjs`: commands as JSON lines on stdin, answers and events as JSON
//! lines on stdout. Knows no expectations; those are in the cases.

mod pipe;
mod v4;
mod v5;

use std::collections::HashMap;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::LocalSet;

use pipe::{Failure, answer};

/// A client of either version.
enum Client {
    Four(v4::Client),
    Five(v5::Client),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    LocalSet::new().run_until(listen()).await
}

async fn listen() -> Result<(), Failure> {
    let mut clients = HashMap::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        if let Err(failure) = obey(&mut clients, &request).await {
            answer(&request["number"], Err(failure.to_string()));
        }
    }
    Ok(())
}

/// Does what is asked. What the broker has to confirm is answered by the client's task when it has.
async fn obey(clients: &mut HashMap<String, Client>, request: &Value) -> Result<(), Failure> {
    let name = request["client"].as_str().ok_or("no client")?;
    if request["command"] == "open" {
        let client = match request["options"]["version"].as_u64() {
            Some(4) => Client::Four(v4::Client::open(name, request)?),
            _ => Client::Five(v5::Client::open(name, request)?),
        };
        clients.insert(name.to_owned(), client);
        return Ok(());
    }
    let client = clients.get_mut(name).ok_or("no such client")?;
    match (client, request["command"].as_str().unwrap_or_default()) {
        (Client::Four(client), "subscribe") => client.subscribe(request).await,
        (Client::Five(client), "subscribe") => client.subscribe(request).await,
        (Client::Four(client), "publish") => client.publish(request).await,
        (Client::Five(client), "publish") => client.publish(request).await,
        (Client::Four(client), "ack") => client.ack(request).await,
        (Client::Five(client), "ack") => client.ack(request).await,
        (Client::Four(client), "kill") => client.kill(request).await,
        (Client::Five(client), "kill") => client.kill(request).await,
        (Client::Four(client), "close") => client.close(request).await,
        (Client::Five(client), "close") => client.close(request).await,
        (_, command) => Err(format!("cannot {command}").into()),
    }
}
