//! A client of Tidegate's raw protocol that connects again and restores its subscriptions.
//!
//! ```no_run
//! use tidegate_client::{Client, Event, Publication, SubscribeOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::connect("ws://127.0.0.1:8080/ws").await?;
//! client.subscribe("plant/+/temp", SubscribeOptions::new()).await?;
//! client.publish(&Publication::text("plant/3/temp", "21.5")?).await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => println!("{}: {:?}", message.topic, message.text()),
//!         Event::Restored { may_have_gap: true } => println!("something may be missing here"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  Client ──commands──▶ driver (the only task) ⇄ connection ⇄ socket
//!  Events ◀──queue────────┘  └─ session: what waits for an answer, what is subscribed
//! ```
//!
//! What it promises:
//!
//! - **Nothing is sent twice.** A request that was in flight when the connection was lost fails with
//!   [`RequestError::ConnectionLost`]; whether to repeat it is the caller's decision.
//! - **A gap is told.** [`Event::Restored`] stands where messages may be missing.
//! - **Every queue has a bound** ([`Limits`]). A user who does not read [`Events`] stops the socket, and the broker
//!   applies the overflow policy of the subscription; other clients do not notice.
//! - **The broker's close codes are obeyed**: after 1008 or 4000 to 4099 the client ends with [`Event::Ended`],
//!   after 4200 to 4299 it comes back at once, after 1001 or 1012 when the broker said, otherwise with growing
//!   pauses ([`Backoff`]).
//! - **Nothing outlives the [`Client`]**: dropping the last clone ends its task and closes the connection.
//!
//! It speaks `ws:` only. Frames are those of `raw.msgpack.v1`, compressed if the broker agrees.

mod client;
mod connection;
mod driver;
mod error;
mod event;
mod heartbeat;
mod options;
mod publication;
mod retry;
mod session;
mod url;

pub use tidegate_protocol::publication::Properties;
pub use tidegate_protocol::raw::client::{Lag, Msg as Message, Refused};
pub use tidegate_protocol::session::Overflow;
pub use tidegate_protocol::topic::{Topic, TopicError, TopicFilter};

pub use crate::client::Client;
pub use crate::error::{ConnectError, Disconnect, RequestError};
pub use crate::event::{End, Event, Events};
pub use crate::options::{Backoff, Compression, Conflate, Limits, Options, SubscribeOptions};
pub use crate::publication::Publication;
pub use crate::url::UrlError;
