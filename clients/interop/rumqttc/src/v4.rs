//! rumqttc's client for MQTT 3.1.1.

use std::collections::HashMap;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, SubscribeReasonCode,
    Transport,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::pipe::{Failure, Shared, Waiting, answer, bytes, closed, heard, number, port};

/// One client and the task that polls it.
pub struct Client {
    it: AsyncClient,
    waiting: Shared<Waiting>,
    unacknowledged: Shared<HashMap<u16, Publish>>,
    task: JoinHandle<()>,
}

impl Client {
    /// Begins to connect; the task answers.
    pub fn open(name: &str, request: &Value) -> Result<Self, Failure> {
        let said = &request["options"];
        let url = said["url"].as_str().ok_or("no URL")?;
        let mut options = MqttOptions::new(said["clientId"].as_str().unwrap_or_default(), url, port(url)?);
        options.set_transport(Transport::Ws);
        options.set_keep_alive(Duration::from_secs(said["keepalive"].as_u64().unwrap_or(30)));
        options.set_clean_session(said["clean"].as_bool().unwrap_or(true));
        options.set_manual_acks(said["manual"].as_bool().unwrap_or(false));
        options.set_max_packet_size(2 << 20, 2 << 20);
        if let Some(will) = said.get("will") {
            let topic = will["topic"].as_str().unwrap_or_default();
            let retain = will["retain"].as_bool().unwrap_or(false);
            options.set_last_will(LastWill::new(topic, bytes(&will["payload"])?, qos(will)?, retain));
        }
        let reconnect = said["reconnect"].as_bool().unwrap_or(false);
        let (it, events) = AsyncClient::new(options, 1000);
        let waiting =
            Shared::new(Waiting { open: Some(request["number"].clone()), ..Waiting::default() }.into());
        let unacknowledged = Shared::default();
        let task = tokio::task::spawn_local(run(
            name.to_owned(),
            events,
            reconnect,
            Shared::clone(&waiting),
            Shared::clone(&unacknowledged),
        ));
        Ok(Self { it, waiting, unacknowledged, task })
    }

    /// SUBSCRIBE.
    pub async fn subscribe(&self, request: &Value) -> Result<(), Failure> {
        self.waiting.borrow_mut().subscribes.push_back(request["number"].clone());
        let topic = request["topic"].as_str().unwrap_or_default();
        Ok(self.it.subscribe(topic, qos(&request["options"])?).await?)
    }

    /// PUBLISH.
    pub async fn publish(&self, request: &Value) -> Result<(), Failure> {
        let said = &request["options"];
        self.waiting.borrow_mut().publishes.push_back(request["number"].clone());
        let topic = request["topic"].as_str().unwrap_or_default();
        let retain = said["retain"].as_bool().unwrap_or(false);
        Ok(self.it.publish(topic, qos(said)?, retain, bytes(&request["payload"])?).await?)
    }

    /// Acknowledges a message that was heard with `manual`.
    pub async fn ack(&self, request: &Value) -> Result<(), Failure> {
        let id = number(&request["id"]).ok_or("no identifier")?;
        let publish = self.unacknowledged.borrow_mut().remove(&id).ok_or("nothing to acknowledge")?;
        self.it.ack(&publish).await?;
        answer(&request["number"], Ok(Value::Null));
        Ok(())
    }

    /// Drops the connection without a word.
    pub async fn kill(&mut self, request: &Value) -> Result<(), Failure> {
        self.task.abort();
        // Ended or aborted, it is over.
        let _ = (&mut self.task).await;
        answer(&request["number"], Ok(Value::Null));
        Ok(())
    }

    /// DISCONNECT, answered when the connection is over.
    pub async fn close(&self, request: &Value) -> Result<(), Failure> {
        if self.task.is_finished() {
            answer(&request["number"], Ok(Value::Null));
            return Ok(());
        }
        self.waiting.borrow_mut().close = Some(request["number"].clone());
        Ok(self.it.disconnect().await?)
    }
}

fn qos(said: &Value) -> Result<rumqttc::QoS, Failure> {
    let level = number(said.get("qos").unwrap_or(&json!(0))).ok_or("no QoS")?;
    rumqttc::qos(level).map_err(|error| format!("{error:?}").into())
}

async fn run(
    name: String,
    mut events: EventLoop,
    reconnect: bool,
    waiting: Shared<Waiting>,
    unacknowledged: Shared<HashMap<u16, Publish>>,
) {
    loop {
        let event = match events.poll().await {
            Ok(event) => event,
            Err(_) if reconnect && waiting.borrow().close.is_none() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => {
                waiting.borrow_mut().over(&error.to_string());
                return closed(&name, &json!({}));
            }
        };
        let mut waiting = waiting.borrow_mut();
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => {
                if let Some(number) = waiting.open.take() {
                    answer(&number, Ok(json!({"sessionPresent": connack.session_present, "properties": {}})));
                }
            }
            Event::Incoming(Packet::Publish(it)) => {
                let info = json!({"retain": it.retain, "qos": it.qos as u8, "dup": it.dup, "id": it.pkid, "properties": {}});
                heard(&name, it.topic.as_bytes(), &it.payload, &info);
                unacknowledged.borrow_mut().insert(it.pkid, it);
            }
            Event::Incoming(Packet::PubAck(ack)) => waiting.confirmed(ack.pkid, Ok(Value::Null)),
            Event::Incoming(Packet::PubComp(ack)) => waiting.confirmed(ack.pkid, Ok(Value::Null)),
            Event::Incoming(Packet::SubAck(ack)) => waiting.confirmed(ack.pkid, granted(&ack.return_codes)),
            Event::Outgoing(Outgoing::Publish(id)) => waiting.published(id),
            Event::Outgoing(Outgoing::Subscribe(id)) => waiting.subscribed(id),
            _ => {}
        }
    }
}

fn granted(codes: &[SubscribeReasonCode]) -> Result<Value, String> {
    match codes.first() {
        Some(SubscribeReasonCode::Success(qos)) => Ok(json!(*qos as u8)),
        other => Err(format!("{other:?}")),
    }
}
