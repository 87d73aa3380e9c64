"""The kinds of client that every protocol is tried with, each opened under its name."""

import paho.mqtt.client as paho
from clients import Envelope, JsClient, Paho, Payload, StompPy, query


def payload_path(subscribe, publish):
    return "/ws?" + query(*filter(None, [subscribe]), pub=publish)


KINDS = {
    "mqtt.js 3.1.1": lambda w, s, p: JsClient(w.agent, "mqtt", {"url": w.broker.url("/mqtt"), "version": 4}),
    "mqtt.js 5": lambda w, s, p: JsClient(w.agent, "mqtt", {"url": w.broker.url("/mqtt"), "version": 5}),
    "paho 3.1.1": lambda w, s, p: Paho(w.port, paho.MQTTv311),
    "paho 5": lambda w, s, p: Paho(w.port, paho.MQTTv5),
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
