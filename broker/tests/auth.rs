//! Enhanced authentication over real sockets: SCRAM-SHA-256 in CONNECT and AUTH (OASIS MQTT 5.0 §4.12, RFC 7677).

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use support::Broker;
use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use tidegate::auth::scram::{ITERATIONS_MIN, METHOD, user_line};
use tidegate_protocol::mqtt::packet::{Connect, Disconnect, Packet, Properties, ReasonCode, Version};

const FIRST: &str = "n,,n=ann,r=abcdefghijklmnop";

async fn broker() -> (Broker, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines = [("ann", "secret"), ("bob", "secret")]
        .map(|(user, password)| user_line(user, password, ITERATIONS_MIN).unwrap());
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let settings = format!("[auth]\nanonymous = \"never\"\nscram_file = {:?}", file.path());
    (Broker::start(&settings).await, file)
}

fn properties(method: &str, data: &str) -> Option<Box<Properties>> {
    Some(Box::new(Properties {
        authentication_method: Some(method.into()),
        authentication_data: Some(Bytes::copy_from_slice(data.as_bytes())),
        ..Properties::default()
    }))
}

fn auth(reason: ReasonCode, data: &str) -> Packet {
    Packet::Auth(Disconnect { reason, properties: properties(METHOD, data) })
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The client's last word and the server's, as RFC 5802 §3 has them.
fn last(first: &str, server_first: &str, password: &str) -> (String, String) {
    let parts: Vec<&str> = server_first.splitn(3, ',').collect();
    let salt = STANDARD.decode(parts[1].strip_prefix("s=").unwrap()).unwrap();
    let iterations = parts[2].strip_prefix("i=").unwrap().parse().unwrap();
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, iterations, &mut salted);
    let client_key = sign(&salted, "Client Key");
    let without_proof = format!("c=biws,{}", parts[0]);
    let message = format!("{},{server_first},{without_proof}", first.strip_prefix("n,,").unwrap());
    let signature = sign(&Sha256::digest(&client_key), &message);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
    let server = sign(&sign(&salted, "Server Key"), &message);
    (format!("{without_proof},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server)))
}

fn data(properties: Option<Box<Properties>>) -> String {
    let properties = properties.unwrap();
    assert_eq!(properties.authentication_method.as_deref(), Some(METHOD));
    String::from_utf8(properties.authentication_data.unwrap().to_vec()).unwrap()
}

async fn challenge(client: &mut Mqtt) -> String {
    match client.packet().await {
        Packet::Auth(auth) if auth.reason == ReasonCode::CONTINUE_AUTHENTICATION => data(auth.properties),
        other => panic!("AUTH was expected: {other:?}"),
    }
}

async fn begin(broker: &Broker, method: &str, first: &str) -> Mqtt {
    let mut client = Mqtt::open(broker, Version::V5, Ask::default()).await;
    let connect = Connect { properties: properties(method, first), ..mqtt::connect(Version::V5, "c") };
    client.send(Packet::Connect(Box::new(connect))).await;
    client
}

async fn login(broker: &Broker) -> Mqtt {
    let mut client = begin(broker, METHOD, FIRST).await;
    let (proof, expected) = last(FIRST, &challenge(&mut client).await, "secret");
    client.send(auth(ReasonCode::CONTINUE_AUTHENTICATION, &proof)).await;
    match client.packet().await {
        Packet::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS => {
            assert_eq!(data(ack.properties), expected)
        }
        other => panic!("CONNACK was expected: {other:?}"),
    }
    client
}

async fn refusal(client: &mut Mqtt) -> ReasonCode {
    match client.packet().await {
        Packet::ConnAck(ack) => ack.reason,
        other => panic!("CONNACK was expected: {other:?}"),
    }
}

#[tokio::test]
async fn who_proves_to_know_the_password_gets_in_and_nobody_else() {
    let (broker, _file) = broker().await;
    let mut client = login(&broker).await;
    client.subscribe("t", Default::default()).await;

    let mut liar = begin(&broker, METHOD, FIRST).await;
    let (proof, _) = last(FIRST, &challenge(&mut liar).await, "guess");
    liar.send(auth(ReasonCode::CONTINUE_AUTHENTICATION, &proof)).await;
    assert_eq!(refusal(&mut liar).await, ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(liar.end().await.1.code(), 4001);

    let mut stranger = begin(&broker, "PLAIN", "x").await;
    assert_eq!(refusal(&mut stranger).await, ReasonCode::BAD_AUTHENTICATION_METHOD); // [MQTT-4.12.0-1]
    let mut anonymous = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    anonymous.send(Packet::Connect(Box::new(mqtt::connect(Version::V5, "a")))).await;
    assert_eq!(refusal(&mut anonymous).await, ReasonCode::NOT_AUTHORIZED);
}

#[tokio::test]
async fn an_exchange_may_begin_anew_and_must_prove_the_same_user() {
    let (broker, _file) = broker().await;
    for (first, password, succeeds) in
        [(FIRST, "secret", true), (FIRST, "guess", false), ("n,,n=bob,r=abcdefghijklmnop", "secret", false)]
    {
        let mut client = login(&broker).await;
        client.send(auth(ReasonCode::REAUTHENTICATE, first)).await;
        let (proof, expected) = last(first, &challenge(&mut client).await, password);
        client.send(auth(ReasonCode::CONTINUE_AUTHENTICATION, &proof)).await;
        if succeeds {
            match client.packet().await {
                Packet::Auth(auth) => {
                    assert_eq!((auth.reason, data(auth.properties)), (ReasonCode::SUCCESS, expected));
                }
                other => panic!("AUTH was expected: {other:?}"),
            }
            client.subscribe("t", Default::default()).await;
        } else {
            let (reason, end) = client.end().await;
            assert_eq!((reason, end.code()), (Some(ReasonCode::NOT_AUTHORIZED), 4001), "{first} {password}");
        }
    }
}

#[tokio::test]
async fn a_session_belongs_to_its_user() {
    let (broker, _file) = broker().await;
    let mut ann = login(&broker).await;
    let bob = "n,,n=bob,r=abcdefghijklmnop";
    let mut client = begin(&broker, METHOD, bob).await; // the same client id
    let (proof, _) = last(bob, &challenge(&mut client).await, "secret");
    client.send(auth(ReasonCode::CONTINUE_AUTHENTICATION, &proof)).await;
    assert_eq!(refusal(&mut client).await, ReasonCode::SUCCESS);
    // SEC-19: she is neither cut nor asked.
    ann.subscribe("t", Default::default()).await;
}
