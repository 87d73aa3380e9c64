//! rumqttc's client for MQTT 5.

use std::collections::HashMap;
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectProperties, Filter, LastWill, LastWillProperties, Packet, Publish,
    PublishProperties, RetainForwardRule, SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{QoS, qos as qos_of};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::pipe::{Failure, Properties, Shared, Waiting, answer, bytes, closed, heard, number, port, string};

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
        options.set_clean_start(said["clean"].as_bool().unwrap_or(true));
        options.set_manual_acks(said["manual"].as_bool().unwrap_or(false));
        options.set_connect_properties(connect_properties(&said["properties"]));
        if let Some(will) = said.get("will") {
            let topic = will["topic"].as_str().unwrap_or_default();
            let retain = will["retain"].as_bool().unwrap_or(false);
            let properties = will_properties(&will["properties"])?;
            options.set_last_will(LastWill::new(
                topic,
                bytes(&will["payload"])?,
                qos(will)?,
                retain,
                Some(properties),
            ));
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

    /// SUBSCRIBE with its options.
    pub async fn subscribe(&self, request: &Value) -> Result<(), Failure> {
        let said = &request["options"];
        let mut filter = Filter::new(request["topic"].as_str().unwrap_or_default(), qos(said)?);
        filter.nolocal = said["no_local"].as_bool().unwrap_or(false);
        filter.preserve_retain = said["retain_as_published"].as_bool().unwrap_or(false);
        filter.retain_forward_rule = match said["retain_handling"].as_u64() {
            Some(1) => RetainForwardRule::OnNewSubscribe,
            Some(2) => RetainForwardRule::Never,
            _ => RetainForwardRule::OnEverySubscribe,
        };
        self.waiting.borrow_mut().subscribes.push_back(request["number"].clone());
        let properties =
            SubscribeProperties { id: number(&said["subscription_identifier"]), user_properties: Vec::new() };
        Ok(self.it.subscribe_many_with_properties([filter], properties).await?)
    }

    /// PUBLISH with its properties.
    pub async fn publish(&self, request: &Value) -> Result<(), Failure> {
        let said = &request["options"];
        self.waiting.borrow_mut().publishes.push_back(request["number"].clone());
        let topic = request["topic"].as_str().unwrap_or_default();
        let retain = said["retain"].as_bool().unwrap_or(false);
        let properties = publish_properties(&said["properties"])?;
        let payload = bytes(&request["payload"])?;
        Ok(self.it.publish_with_properties(topic, qos(said)?, retain, payload, properties).await?)
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

fn qos(said: &Value) -> Result<QoS, Failure> {
    let level = number(said.get("qos").unwrap_or(&json!(0))).ok_or("no QoS")?;
    qos_of(level).ok_or_else(|| "no QoS".into())
}

fn pairs(said: &Value) -> Vec<(String, String)> {
    let pair = |pair: &Value| Some((string(&pair[0])?, string(&pair[1])?));
    said["user_property"].as_array().into_iter().flatten().filter_map(pair).collect()
}

fn data(said: &Value) -> Result<Option<Vec<u8>>, Failure> {
    said.get("base64").map(bytes).transpose()
}

fn connect_properties(said: &Value) -> ConnectProperties {
    ConnectProperties {
        session_expiry_interval: number(&said["session_expiry_interval"]),
        receive_maximum: number(&said["receive_maximum"]),
        max_packet_size: number(&said["maximum_packet_size"]).or(Some(2 << 20)),
        topic_alias_max: number(&said["topic_alias_maximum"]),
        request_response_info: number(&said["request_response_information"]),
        request_problem_info: number(&said["request_problem_information"]),
        user_properties: pairs(said),
        authentication_method: None,
        authentication_data: None,
    }
}

fn will_properties(said: &Value) -> Result<LastWillProperties, Failure> {
    Ok(LastWillProperties {
        delay_interval: number(&said["will_delay_interval"]),
        payload_format_indicator: number(&said["payload_format_indicator"]),
        message_expiry_interval: number(&said["message_expiry_interval"]),
        content_type: string(&said["content_type"]),
        response_topic: string(&said["response_topic"]),
        correlation_data: data(&said["correlation_data"])?.map(Into::into),
        user_properties: pairs(said),
    })
}

fn publish_properties(said: &Value) -> Result<PublishProperties, Failure> {
    Ok(PublishProperties {
        payload_format_indicator: number(&said["payload_format_indicator"]),
        message_expiry_interval: number(&said["message_expiry_interval"]),
        topic_alias: number(&said["topic_alias"]),
        response_topic: string(&said["response_topic"]),
        correlation_data: data(&said["correlation_data"])?.map(Into::into),
        user_properties: pairs(said),
        subscription_identifiers: Vec::new(),
        content_type: string(&said["content_type"]),
    })
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
                return closed(&name, &reason(&error));
            }
        };
        let mut waiting = waiting.borrow_mut();
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => {
                if let Some(number) = waiting.open.take() {
                    let properties = connack.properties.as_ref().map_or_else(|| json!({}), told);
                    answer(
                        &number,
                        Ok(json!({"sessionPresent": connack.session_present, "properties": properties})),
                    );
                }
            }
            Event::Incoming(Packet::Publish(it)) => {
                let properties = it.properties.as_ref().map_or_else(|| json!({}), carried);
                let info = json!({"retain": it.retain, "qos": it.qos as u8, "dup": it.dup, "id": it.pkid, "properties": properties});
                heard(&name, &it.topic, &it.payload, &info);
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

fn reason(error: &ConnectionError) -> Value {
    match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            json!({"reasonCode": *reason_code as u8})
        }
        _ => json!({}),
    }
}

fn granted(codes: &[SubscribeReasonCode]) -> Result<Value, String> {
    match codes.first() {
        Some(SubscribeReasonCode::Success(qos)) => Ok(json!(*qos as u8)),
        other => Err(format!("{other:?}")),
    }
}

/// What CONNACK tells.
fn told(said: &ConnAckProperties) -> Value {
    Properties::default()
        .add("session_expiry_interval", said.session_expiry_interval)
        .add("receive_maximum", said.receive_max)
        .add("maximum_packet_size", said.max_packet_size)
        .add("topic_alias_maximum", said.topic_alias_max)
        .add("assigned_client_identifier", said.assigned_client_identifier.clone())
        .add("server_keep_alive", said.server_keep_alive)
        .add("response_information", said.response_information.clone())
        .done()
}

/// What a publication carries.
fn carried(said: &PublishProperties) -> Value {
    Properties::default()
        .add("payload_format_indicator", said.payload_format_indicator)
        .add("message_expiry_interval", said.message_expiry_interval)
        .add("topic_alias", said.topic_alias)
        .add("response_topic", said.response_topic.clone())
        .add_bytes("correlation_data", said.correlation_data.as_deref())
        .add_list("user_property", &said.user_properties)
        .add_list("subscription_identifier", &said.subscription_identifiers)
        .add("content_type", said.content_type.clone())
        .done()
}
