//! One hostile client against a running broker, byte by byte over a real socket: what it gets to see at the end
//! of its connection, and that what it may make us keep has a bound (SEC-9, SEC-14, RFC 6455 §5.5 and §7.1.1).
#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers may panic")]

use std::path::Path;
use std::time::Duration;

use tidegate::assembly::Running;
use tidegate::config::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

async fn broker() -> Running {
    let file = "[[listener]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"none\"\n[log]\nlevel = \"off\"\n[store]\npath = \"\"\n";
    let config = Config::from_text(Path::new("test.toml"), file, std::iter::empty()).unwrap();
    Running::start(&config).await.unwrap()
}

/// A socket behind the 101; nothing of what follows that is read yet.
async fn connect(broker: &Running, target: &str, protocol: &str) -> TcpStream {
    let address = broker.listeners().next().unwrap().1;
    let socket = TcpSocket::new_v4().unwrap();
    // So small that what is not read soon waits in the broker.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let offer =
        if protocol.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {protocol}\r\n") };
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // Clients of small devices compare the whole value.
    assert!(answer.contains("\r\nconnection: Upgrade\r\n"), "{answer}");
    socket
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The next frame; `None` at a clean end.
async fn next(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = match socket.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
        Err(error) => panic!("the connection was reset: {error}"),
    };
    let len = match socket.read_u8().await.unwrap() {
        126 => usize::from(socket.read_u16().await.unwrap()),
        127 => usize::try_from(socket.read_u64().await.unwrap()).unwrap(),
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    socket.read_exact(&mut payload).await.unwrap();
    Some((first, payload))
}

async fn rest(socket: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = timeout(PATIENCE, next(socket)).await.unwrap() {
        frames.push(frame);
    }
    frames
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What an echoing client gets that sends all of `input` at once.
async fn check_echo(input: &[u8], expected: &[(u8, &[u8])]) {
    let broker = broker().await;
    let mut socket = connect(&broker, "/ws?t=x&pub=x", "").await;
    socket.write_all(input).await.unwrap();
    let mut frames = rest(&mut socket).await;
    if let Some((CLOSE, payload)) = frames.last_mut() {
        payload.truncate(2);
    }
    let frames: Vec<_> = frames.iter().map(|(first, payload)| (*first, &payload[..])).collect();
    assert_eq!(frames, expected);
}

#[tokio::test]
async fn what_comes_with_a_close_is_answered_before_it() {
    let input = [frame(TEXT, b"Hello"), frame(CLOSE, &[3, 232])].concat();
    check_echo(&input, &[(TEXT, b"Hello"), (CLOSE, &[3, 232])]).await;
}

#[tokio::test]
async fn what_comes_before_a_broken_frame_is_answered_first() {
    let input = [frame(TEXT, b"Hello"), frame(0x83, b""), frame(PING, b"")].concat();
    check_echo(&input, &[(TEXT, b"Hello"), (CLOSE, &[3, 234])]).await;
}

#[tokio::test]
async fn each_of_ten_pings_in_one_segment_has_its_pong() {
    let payloads: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
    let mut input: Vec<u8> = payloads.iter().flat_map(|payload| frame(PING, payload.as_bytes())).collect();
    input.extend(frame(CLOSE, &[3, 232]));
    let mut expected: Vec<(u8, &[u8])> = payloads.iter().map(|payload| (PONG, payload.as_bytes())).collect();
    expected.push((CLOSE, &[3, 232]));
    check_echo(&input, &expected).await;
}

#[tokio::test]
async fn what_is_sent_behind_a_close_does_not_reset_the_connection() {
    let broker = broker().await;
    let mut socket = connect(&broker, "/ws?t=x&pub=x", "").await;
    socket.write_all(&frame(CLOSE, &[3, 232])).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        socket.write_all(&frame(TEXT, b"late")).await.unwrap();
    }
    assert_eq!(rest(&mut socket).await, [(CLOSE, vec![3, 232])]);
    // A reset would have come after the end of the stream.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(socket.take_error().unwrap().is_none());
    assert!(socket.write_all(b"x").await.is_ok());
}

async fn mqtt(broker: &Running) -> TcpStream {
    let mut socket = connect(broker, "/mqtt", "mqtt").await;
    let connect = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
    socket.write_all(&frame(BINARY, connect)).await.unwrap();
    assert_eq!(next(&mut socket).await, Some((BINARY, b"\x20\x02\x00\x00".to_vec())));
    socket
}

/// A message full of PINGREQ.
fn pings(count: usize) -> Vec<u8> {
    frame(BINARY, &b"\xc0\x00".repeat(count))
}

#[tokio::test]
async fn answers_of_one_large_message_wait_for_their_reader() {
    let broker = broker().await;
    let mut socket = mqtt(&broker).await;
    // The socket takes some of the answers, so that decoding stops in the middle; all come when they are read.
    let messages = pings(1 << 17).repeat(2);
    let (mut read, mut write) = socket.split();
    let writing = async {
        write.write_all(&messages).await.unwrap();
        write.write_all(&frame(CLOSE, &[3, 232])).await.unwrap();
    };
    let reading = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.unwrap();
        all
    };
    let ((), all) = timeout(Duration::from_secs(60), async { tokio::join!(writing, reading) }).await.unwrap();
    let expected = 2 * (1 << 17) * b"\x82\x02\xd0\x00".len();
    assert_eq!(all.len(), expected + 4, "a PINGRESP for each PINGREQ, and the Close");
    assert!(all.ends_with(&[CLOSE, 2, 3, 232]));
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_made() {
    let broker = broker().await;
    let before = resident_bytes();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut socket = mqtt(&broker).await;
        socket.write_all(&pings(1 << 19)).await.unwrap();
        stuck.push(socket);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Half a million answers cost 32 MiB in a queue; their message costs 1 MiB.
    let growth = resident_bytes().saturating_sub(before);
    assert!(growth < 100 << 20, "{} MiB for 8 clients", growth >> 20);
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_reader_costs_no_cpu() {
    let broker = broker().await;
    let mut socket = mqtt(&broker).await;
    socket.write_all(&pings(1 << 19)).await.unwrap();
    // Until the answers are stuck: other tests of this process may be busy, this runtime's workers are not.
    let busy = || tokio::runtime::Handle::current().metrics().worker_total_busy_duration(0);
    let busy_other = || tokio::runtime::Handle::current().metrics().worker_total_busy_duration(1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = busy() + busy_other();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = busy() + busy_other() - before;
    assert!(spent < Duration::from_millis(300), "busy for {spent:?} of 2 s");
}

#[tokio::test]
async fn all_retained_messages_reach_a_reader_that_is_no_faster_than_it_is() {
    const COUNT: usize = 3000;
    let broker = broker().await;
    let mut publisher = mqtt(&broker).await;
    for n in 0..COUNT {
        let mut packet = vec![0x31, 0xf6, 0x03, 0, 6];
        packet.extend(format!("r/{n:04}").bytes());
        packet.resize(3 + 0x1f6, b'x');
        publisher.write_all(&frame(BINARY, &packet)).await.unwrap();
    }
    publisher.write_all(&frame(BINARY, b"\xc0\x00")).await.unwrap();
    assert_eq!(next(&mut publisher).await, Some((BINARY, b"\xd0\x00".to_vec())));

    let mut reader = mqtt(&broker).await;
    reader.write_all(&frame(BINARY, b"\x82\x08\x00\x01\x00\x03r/#\x00")).await.unwrap();
    let mut count = 0;
    while count < COUNT {
        let (_, packet) =
            timeout(PATIENCE, next(&mut reader)).await.expect("messages stopped coming").unwrap();
        count += usize::from(packet.starts_with(&[0x31]));
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
