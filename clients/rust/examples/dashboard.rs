//! Prints the latest value of every topic below a filter, at most four times a second each.
//!
//! `cargo run -p tidegate-client --example dashboard -- ws://127.0.0.1:8080/ws 'plant/#'`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Duration;

use tidegate_client::{Client, Conflate, Event, SubscribeOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8080/ws".to_owned());
    let filter = arguments.next().unwrap_or_else(|| "#".to_owned());

    let (client, mut events) = Client::connect(&url).await?;
    let options = SubscribeOptions::new().with_conflate(Conflate::Every(Duration::from_millis(250)));
    client.subscribe(&filter, options).await?;
    println!("{filter} at {url}, {:?} away", client.ping().await?);

    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => match message.text() {
                Some(text) => println!("{} = {text}", message.topic),
                None => println!("{} = {} bytes", message.topic, message.payload.len()),
            },
            Event::Lag(lag) => println!("too slow: {} dropped", lag.dropped),
            Event::Lost { cause, retry_in } => println!("{cause}; again in {retry_in:?}"),
            Event::Restored { .. } => println!("connected again; some values may have been missed"),
            Event::Ended(end) => return Err(end.into()),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
