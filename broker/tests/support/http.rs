//! Plain HTTP/1.1 for one request: what the admin listener answers, and how handshakes are refused.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("not HTTP: {text:?}")),
            head: head.into(),
            body: body.into(),
        }
    }

    /// The value of a header; names in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends these bytes and reads until the server closes.
pub async fn request(address: SocketAddr, bytes: &[u8]) -> Answer {
    within("an HTTP answer", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A refusal may come, and the connection end, before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Answer::parse(&String::from_utf8_lossy(&answer))
    })
    .await
}

/// GET, closing.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    request(address, head.as_bytes()).await
}

/// A correct handshake for `target`, with further header lines. Reads the head of a 101, or all of a refusal.
pub async fn upgrade(address: SocketAddr, target: &str, headers: &[&str]) -> Answer {
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    within("the answer to a handshake", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        while let Ok(len) = stream.read_buf(&mut answer).await {
            let text = String::from_utf8_lossy(&answer);
            if len == 0 || (text.starts_with("HTTP/1.1 101") && text.contains("\r\n\r\n")) {
                break;
            }
        }
        Answer::parse(&String::from_utf8_lossy(&answer))
    })
    .await
}
