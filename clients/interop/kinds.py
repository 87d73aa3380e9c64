"""The kinds of client that every protocol is tried with, each opened under its name."""

from clients import Envelope, JsClient, Payload, StompPy, query
from mqtt_libraries import LIBRARIES


def payload_path(subscribe, publish):
    return "/ws?" + query(*filter(None, [subscribe]), pub=publish)


KINDS = {
    "mqtt.js 3.1.1": lambda w, s, p: LIBRARIES["mqtt.js", 4](w.broker, w, w.new_name()),
    "mqtt.js 5": lambda w, s, p: LIBRARIES["mqtt.js", 5](w.broker, w, w.new_name()),
    "paho 3.1.1": lambda w, s, p: LIBRARIES["paho-mqtt", 4](w.broker, w, w.new_name()),
    "paho 5": lambda w, s, p: LIBRARIES["paho-mqtt", 5](w.broker, w, w.new_name()),
    "aiomqtt 5": lambda w, s, p: LIBRARIES["aiomqtt", 5](w.broker, w, w.new_name()),
    "rumqttc 3.1.1": lambda w, s, p: LIBRARIES["rumqttc", 4](w.broker, w, w.new_name()),
    "rumqttc 5": lambda w, s, p: LIBRARIES["rumqttc", 5](w.broker, w, w.new_name()),
    "stompjs 1.0": lambda w, s, p: JsClient(w.agent, "stomp", {"url": w.broker.url("/stomp"), "version": "1.0"}),
    "stompjs 1.1": lambda w, s, p: JsClient(w.agent, "stomp", {"url": w.broker.url("/stomp"), "version": "1.1"}),
    "stompjs 1.2": lambda w, s, p: JsClient(w.agent, "stomp", {"url": w.broker.url("/stomp"), "version": "1.2"}),
    "stomp.py": lambda w, s, p: StompPy(w.port),
    "websockets, JSON envelope": lambda w, s, p: Envelope(w.port),
    "websockets, MessagePack envelope": lambda w, s, p: Envelope(w.port, packed=True),
    "websockets with deflate, payload mode": lambda w, s, p: Payload(
        w.port, query(*filter(None, [s]), pub=p), deflate=True
    ),
    "node ws, payload mode": lambda w, s, p: JsClient(w.agent, "ws", {"url": w.broker.url(payload_path(s, p))}),
    "Chromium": lambda w, s, p: JsClient(w.agent, "page", {"url": w.broker.url(payload_path(s, p))}),
}


def open_kind(world, kind, subscribe=None, publish=None):
    """A client of this kind; subscribed, and able to publish to `publish`."""
    client = world.keep(KINDS[kind](world, subscribe, publish))
    if subscribe:
        client.subscribe(subscribe)
    return client


def open_js(world, kind, path, **options):
    return world.keep(JsClient(world.agent, kind, {"url": world.broker.url(path), **options}))
