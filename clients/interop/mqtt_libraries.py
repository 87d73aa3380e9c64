"""The MQTT libraries behind one interface, with all that they let one say: mqtt.js, paho-mqtt, aiomqtt, rumqttc.

Properties have the standard's names in lower case, as in mqtt_packets.py, whatever a library calls them. No expectations.
`can` says what a library offers, so that the cases leave out the rest.
"""

import asyncio
import base64
import queue
import threading

import aiomqtt
import paho.mqtt.client as paho
from clients import PATIENCE_SECONDS, Client, Message
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


class AgentClient(Client):
    """mqtt.js in agent.cjs, or rumqttc in its program: the same words through a pipe."""

    def __init__(self, agent, kind, url, version, client_id, will=None, properties=None, **options):
        super().__init__()
        self._agent, self.name = agent, f"{kind}{id(self)}"
        agent._clients[self.name] = self
        said = agent.call(
            client=self.name, command="open", kind=kind, timeout=30,
            options={
                "url": url, "version": version, "clientId": client_id, "properties": to_json(properties or {}), **options,
                **({"will": {**will, "payload": text(will["payload"]), "properties": to_json(will.get("properties", {}))}} if will else {}),
            },
        )
        self.session_present, self.properties = said["sessionPresent"], from_json(said["properties"])

    def subscribe(self, topic, qos=0, **options):
        """The granted QoS; options by their names in the standard."""
        return self._agent.call(client=self.name, command="subscribe", topic=topic, options={"qos": qos, **options})

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        self._agent.wait(self._publish(topic, payload, qos, retain, properties))

    def _publish(self, topic, payload, qos=0, retain=False, properties=None):
        options = {"qos": qos, "retain": retain, "properties": to_json(properties or {})}
        return self._agent.start(client=self.name, command="publish", topic=topic, payload=text(payload), options=options)

    def begin_all(self, messages):
        """Hands them to the library and waits for nothing; what it returns is for `finish_all`."""
        return [self._publish(*message) for message in messages]

    def finish_all(self, begun):
        for answer in begun:
            try:
                self._agent.wait(answer, 30)
            except ConnectionError as told:
                # PUBCOMP 0x92 is no error during recovery [MQTT5 3.7.2.1]; mqtt.js calls it one.
                if "Packet Identifier not found" not in str(told):
                    raise

    def publish_all(self, messages):
        """Triples of topic, payload and QoS, none of which waits for the one before."""
        self.finish_all(self.begin_all(messages))

    def receive(self, timeout=PATIENCE_SECONDS):
        message = super().receive(timeout)
        message.info["properties"] = from_json(message.info["properties"])
        return message

    def ack(self, message):
        self._agent.call(client=self.name, command="ack", id=message.info["id"])

    def ping(self):
        self._agent.call(client=self.name, command="ping")

    def kill(self):
        self._agent.call(client=self.name, command="kill")

    def close(self):
        self._agent.call(client=self.name, command="close")


def text(payload):
    return base64.b64encode(payload).decode()


def to_json(properties):
    return {name: {"base64": text(value)} if isinstance(value, bytes) else value for name, value in properties.items()}


def from_json(properties):
    def value_of(name, value):
        if name == "user_property":
            return [tuple(pair) for pair in value]
        return base64.b64decode(value["base64"]) if isinstance(value, dict) else value

    return {name: value_of(name, value) for name, value in properties.items()}


def to_paho(kind, properties):
    if not properties:
        return None
    it = Properties(kind)
    for name, value in properties.items():
        setattr(it, name.title().replace("_", ""), value)
    return it


def from_paho(properties):
    found = {}
    for name in properties.names if properties else ():
        attribute = name.replace(" ", "")
        if hasattr(properties, attribute):
            found[name.lower().replace(" ", "_")] = getattr(properties, attribute)
    return found


def subscribe_options(qos, no_local=False, retain_as_published=False, retain_handling=0):
    return SubscribeOptions(qos, no_local, retain_as_published, retain_handling)


def split_options(qos, subscription_identifier=None, **options):
    """What paho wants as SubscribeOptions and as Properties."""
    named = {"subscription_identifier": subscription_identifier} if subscription_identifier else {}
    return subscribe_options(qos, **options), to_paho(PacketTypes.SUBSCRIBE, named)


class PahoClient(Client):
    """paho-mqtt with its own thread."""

    def __init__(self, broker, version, client_id, clean=True, keepalive=60, will=None, properties=None, manual=False, reconnect=False):
        super().__init__()
        self._five = version == 5
        self._done, self._lock, self._connected = {}, threading.Lock(), queue.Queue()
        more = {} if self._five else {"clean_session": clean}
        it = self._it = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, transport="websockets", manual_ack=manual,
            protocol=paho.MQTTv5 if self._five else paho.MQTTv311, reconnect_on_failure=reconnect, **more,
        )
        it.ws_set_options(path="/mqtt")
        it.reconnect_delay_set(1, 1)
        it.on_connect = lambda client, data, flags, reason, said: self._connected.put((flags, reason, said))
        it.on_message = self._on_message
        it.on_subscribe = lambda client, data, mid, reasons, said: self._of(mid).put(reasons)
        it.on_publish = lambda client, data, mid, reason, said: self._of(mid).put(reason)
        it.on_disconnect = lambda client, data, flags, reason, said: self._closed.put({"reasonCode": reason.value})
        if will:
            it.will_set(
                will["topic"], will["payload"], will.get("qos", 0), will.get("retain", False),
                to_paho(PacketTypes.WILLMESSAGE, will.get("properties")),
            )
        more = {"clean_start": clean, "properties": to_paho(PacketTypes.CONNECT, properties)} if self._five else {}
        it.connect("127.0.0.1", broker.port, keepalive=keepalive, **more)
        it.loop_start()
        flags, reason, said = self._connected.get(timeout=PATIENCE_SECONDS)
        assert not reason.is_failure, reason
        self.session_present, self.properties = flags.session_present, from_paho(said) if self._five else {}

    def _of(self, mid):
        with self._lock:
            return self._done.setdefault(mid, queue.Queue())

    def _on_message(self, client, data, it):
        properties = from_paho(it.properties) if self._five else {}
        info = {"retain": it.retain, "qos": it.qos, "dup": bool(it.dup), "id": it.mid, "properties": properties}
        self._messages.put(Message(it.topic, it.payload, info))

    def subscribe(self, topic, qos=0, **options):
        if self._five:
            options, properties = split_options(qos, **options)
            _, mid = self._it.subscribe(topic, options=options, properties=properties)
        else:
            _, mid = self._it.subscribe(topic, qos)
        return self._of(mid).get(timeout=PATIENCE_SECONDS)[0].value

    def publish(self, *message, **more):
        self._it_is_sent(self._publish(*message, **more))

    def _publish(self, topic, payload, qos=0, retain=False, properties=None):
        return self._it.publish(topic, payload, qos, retain, to_paho(PacketTypes.PUBLISH, properties))

    def _it_is_sent(self, info):
        self._of(info.mid).get(timeout=PATIENCE_SECONDS)

    def begin_all(self, messages):
        return [self._publish(*message) for message in messages]

    def publish_all(self, messages):
        self.finish_all(self.begin_all(messages))

    def finish_all(self, begun):
        for info in begun:
            self._it_is_sent(info)

    def ack(self, message):
        self._it.ack(message.info["id"], message.info["qos"])

    def kill(self):
        # Closed under the client's feet: no DISCONNECT leaves.
        self._it.loop_stop()
        self._it.socket().close()

    def close(self):
        self._it.disconnect()
        self._it.loop_stop()


class Loop:
    """One event loop in a thread for all aiomqtt clients."""

    _it = None
    _lock = threading.Lock()

    @classmethod
    def run(cls, coroutine, timeout=PATIENCE_SECONDS):
        with cls._lock:
            if cls._it is None:
                cls._it = asyncio.new_event_loop()
                threading.Thread(target=cls._it.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, cls._it).result(timeout)


class AioClient(Client):
    """aiomqtt. It does not tell CONNACK, DUP or the reason of a DISCONNECT."""

    def __init__(self, broker, version, client_id, clean=True, keepalive=60, will=None, properties=None):
        super().__init__()
        self._five = version == 5
        more = {"clean_session": clean}
        if self._five:
            more = {"clean_start": clean, "properties": to_paho(PacketTypes.CONNECT, properties)}
        if will:
            more["will"] = aiomqtt.Will(
                will["topic"], will["payload"], will.get("qos", 0), will.get("retain", False),
                to_paho(PacketTypes.WILLMESSAGE, will.get("properties")),
            )

        async def open_it():
            # Made where its loop runs, for it asks which one that is.
            self._it = aiomqtt.Client(
                "127.0.0.1", broker.port, identifier=client_id, transport="websockets", websocket_path="/mqtt",
                protocol=aiomqtt.ProtocolVersion.V5 if self._five else aiomqtt.ProtocolVersion.V311, keepalive=keepalive, **more,
            )
            self._it.pending_calls_threshold = 1000
            await self._it.__aenter__()
            self._task = asyncio.create_task(self._listen())

        Loop.run(open_it())

    async def _listen(self):
        try:
            async for it in self._it.messages:
                info = {"retain": it.retain, "qos": it.qos, "properties": from_paho(it.properties) if self._five else {}}
                self._messages.put(Message(str(it.topic), it.payload, info))
        except aiomqtt.MqttError:
            self._closed.put({})

    def subscribe(self, topic, qos=0, **options):
        if self._five:
            options, properties = split_options(qos, **options)
            return Loop.run(self._it.subscribe(topic, options=options, properties=properties))[0].value
        return Loop.run(self._it.subscribe(topic, qos))[0].value

    def _publish(self, topic, payload, qos=0, retain=False, properties=None):
        return self._it.publish(topic, payload, qos, retain, to_paho(PacketTypes.PUBLISH, properties))

    def publish(self, *message, **more):
        Loop.run(self._publish(*message, **more))

    def publish_all(self, messages):
        async def all_of_them():
            await asyncio.gather(*(self._publish(*message) for message in messages))

        Loop.run(all_of_them(), 30)

    def kill(self):
        async def cut():
            self._it._client.socket()._socket.shutdown(2)  # noqa: SLF001 - there is no public way to be cut off

        Loop.run(cut())

    def close(self):
        async def leave():
            self._task.cancel()
            await self._it.__aexit__(None, None, None)

        Loop.run(leave())


def _agent_client(agent, kind, version):
    def opened(broker, world, client_id, **options):
        return AgentClient(world.agents[agent], kind, broker.url("/mqtt"), version, client_id, **options)

    return opened


LIBRARIES = {
    ("mqtt.js", 4): _agent_client("js", "mqtt", 4),
    ("mqtt.js", 5): _agent_client("js", "mqtt", 5),
    ("paho-mqtt", 4): lambda broker, world, client_id, **options: PahoClient(broker, 4, client_id, **options),
    ("paho-mqtt", 5): lambda broker, world, client_id, **options: PahoClient(broker, 5, client_id, **options),
    ("aiomqtt", 4): lambda broker, world, client_id, **options: AioClient(broker, 4, client_id, **options),
    ("aiomqtt", 5): lambda broker, world, client_id, **options: AioClient(broker, 5, client_id, **options),
    ("rumqttc", 4): _agent_client("rumqttc", "rumqttc", 4),
    ("rumqttc", 5): _agent_client("rumqttc", "rumqttc", 5),
}

# What a library does not offer or does not tell.
CANNOT = {
    # Takes the empty topic of an alias for an error.
    "aiomqtt": {"manual", "connack", "reason", "aliases", "reconnect"},
    # Forgets the identifiers of QoS 2 when it connects again, so that the application hears a message twice.
    "rumqttc": {"exactly once"},
}


def can(library, what):
    return what not in CANNOT.get(library, ())
