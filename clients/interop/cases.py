"""What every kind of client must be able to do, and what one protocol says to another; each case a sentence."""

import json
import os
import socket

from clients import Envelope, Payload, StompPy, query
from kinds import KINDS, open_kind, open_js, payload_path
from mqtt_libraries import LIBRARIES
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as ws_connect
from world import case, expect, expect_payload

def _every_publisher_reaches_every_receiver(publisher):
    def run(world):
        topic = f"{world.topic}/3/temp"
        source = open_kind(world, publisher, publish=topic)
        receivers = {kind: open_kind(world, kind, subscribe=f"{world.topic}/+/temp") for kind in KINDS}
        for payload in (b"21.5", "grüße, 世界 🌊".encode(), b"last"):
            source.publish(topic, payload)
            for kind, receiver in receivers.items():
                message = expect_payload(receiver, payload, f"what {kind} heard")
                assert message.topic in (None, topic), f"{kind} heard it on {message.topic}"

    return run


for _kind in KINDS:
    case(f"what {_kind} publishes is heard by each of the {len(KINDS)} kinds of client, through a wildcard")(
        _every_publisher_reaches_every_receiver(_kind)
    )

# ---- retained messages --------------------------------------------------------------------------------------------

for _kind in KINDS:

    def _retained(world, kind=_kind):
        open_kind(world, "paho 5").publish(world.topic, b"kept", qos=1, retain=True)
        message = expect_payload(open_kind(world, kind, subscribe=world.topic), b"kept")
        flags = [message.info.get("retain"), message.info.get("ret"), message.info.get("headers", {}).get("retained")]
        if message.topic is not None:
            assert any(flag in (True, "true") for flag in flags), f"nothing says that it is retained: {message.info}"

    case(f"{_kind} gets the retained message when it subscribes")(_retained)


@case("an empty retained message deletes the retained one, from STOMP as from MQTT")
def _(world):
    open_kind(world, "paho 3.1.1").publish(world.topic, b"kept", qos=1, retain=True)
    open_kind(world, "stompjs 1.2").publish(world.topic, b"", headers={"retain": "true"})
    late = open_kind(world, "websockets, JSON envelope", subscribe=world.topic)
    late.publish(world.topic, b"live")
    expect_payload(late, b"live", "the first message")


@case("STOMP and the envelope can retain, and MQTT gets it")
def _(world):
    open_kind(world, "stomp.py").publish(f"{world.topic}/a", b"from STOMP", headers={"retain": "true"})
    open_kind(world, "websockets, MessagePack envelope").publish(f"{world.topic}/b", b"from raw", retain=True)
    late = open_kind(world, "mqtt.js 5", subscribe=f"{world.topic}/#")
    heard = sorted((late.receive().payload, late.receive().payload))
    expect(heard, [b"from STOMP", b"from raw"])


@case("payload mode with last=0 gets no retained message")
def _(world):
    open_kind(world, "paho 5").publish(world.topic, b"kept", qos=1, retain=True)
    client = world.keep(Payload(world.port, query(world.topic, pub=world.topic, last=0)))
    client.publish(world.topic, b"live")
    expect_payload(client, b"live", "the first message")


# ---- wills --------------------------------------------------------------------------------------------------------


@case("the will of an MQTT client that is cut reaches STOMP and a browser, that of one that says goodbye nobody")
def _(world):
    listeners = [open_kind(world, kind, subscribe=f"{world.topic}/#") for kind in ("stompjs 1.2", "Chromium")]
    for end in ("close", "kill"):
        will = {"topic": f"{world.topic}/{end}", "payload": end.encode(), "qos": 1}
        getattr(LIBRARIES["paho-mqtt", 4](world.broker, world, world.new_name(), will=will), end)()
    for listener in listeners:
        expect_payload(listener, b"kill")


# ---- QoS and acknowledgements -------------------------------------------------------------------------------------


@case("QoS 1 is granted and delivered with QoS 1 between paho and mqtt.js")
def _(world):
    receiver = open_kind(world, "mqtt.js 5")
    receiver.subscribe(world.topic, qos=1)
    sender = open_kind(world, "paho 3.1.1")
    expect(sender.subscribe(f"{world.topic}/own", qos=1), 1, "the granted QoS")
    for number in range(50):
        sender.publish(world.topic, str(number).encode(), qos=1)
    for number in range(50):
        expect(expect_payload(receiver, str(number).encode()).info["qos"], 1, "the QoS")


@case("QoS 0 messages of one publisher keep their order through every protocol")
def _(world):
    receivers = [open_kind(world, kind, subscribe=world.topic) for kind in ("paho 5", "stompjs 1.2", "node ws, payload mode")]
    sender = open_kind(world, "websockets with deflate, payload mode", publish=world.topic)
    for number in range(300):
        sender.publish(world.topic, str(number).encode())
    for receiver in receivers:
        for number in range(300):
            expect_payload(receiver, str(number).encode())


@case("STOMP client-individual: stomp.py acknowledges each message, and all come")
def _(world):
    receiver = world.keep(StompPy(world.port))
    receiver.subscribe(world.topic, ack="client-individual")
    sender = open_kind(world, "paho 5")
    for number in range(100):
        sender.publish(world.topic, str(number).encode(), qos=1)
    for number in range(100):
        message = expect_payload(receiver, str(number).encode())
        (receiver.nack if number % 10 == 9 else receiver.ack)(message)


@case("STOMP client: the acknowledgement of one message settles those before it")
def _(world):
    receiver = world.keep(StompPy(world.port))
    receiver.subscribe(world.topic, ack="client")
    sender = open_kind(world, "paho 5")
    # More than the prefetch of 32, so that the rest comes only when acknowledgements are understood.
    for number in range(96):
        sender.publish(world.topic, str(number).encode(), qos=1)
    for number in range(96):
        message = expect_payload(receiver, str(number).encode())
        if number % 16 == 15:
            receiver.ack(message)


@case("stompjs acknowledges in client-individual mode in STOMP 1.1 and 1.2")
def _(world):
    for version in ("1.1", "1.2"):
        receiver = open_js(world, "stomp", "/stomp", version=version)
        receiver.subscribe(f"{world.topic}/{version}", headers={"ack": "client-individual"}, acknowledge="ack")
        sender = open_kind(world, "paho 3.1.1")
        for number in range(64):
            sender.publish(f"{world.topic}/{version}", str(number).encode(), qos=1)
        for number in range(64):
            expect_payload(receiver, str(number).encode())


@case("the envelope answers pub with ok and the number of matches, and ping with pong")
def _(world):
    client = open_kind(world, "websockets, JSON envelope", subscribe=world.topic)
    expect(client.publish(world.topic, b"x").get("matched"), 1, "matched")
    client.say({"op": "ping", "id": 77})
    expect(client.answer()["op"], "pong")


# ---- sizes and kinds of payload -----------------------------------------------------------------------------------

LARGE = os.urandom(450 * 1024).hex().encode()

for _kind in ("paho 5", "stomp.py", "websockets, MessagePack envelope", "node ws, payload mode"):

    def _large(world, kind=_kind):
        sender = open_kind(world, kind, publish=world.topic)
        receivers = {name: open_kind(world, name, subscribe=world.topic) for name in KINDS}
        sender.publish(world.topic, LARGE)
        for name, receiver in receivers.items():
            heard = receiver.receive(20).payload
            assert heard == LARGE, f"{name} heard {len(heard)} bytes that are not the {len(LARGE)} sent"

    case(f"900 KiB from {_kind} reach every client unchanged")(_large)

BINARY = bytes(range(256)) * 8

for _kind in ("mqtt.js 5", "stompjs 1.2", "websockets, JSON envelope", "websockets, MessagePack envelope", "Chromium"):

    def _binary(world, kind=_kind):
        sender = open_kind(world, kind, publish=world.topic)
        receivers = {name: open_kind(world, name, subscribe=world.topic) for name in KINDS}
        options = {"binary": True} if kind == "Chromium" else {}
        sender.publish(world.topic, BINARY, **options)
        for name, receiver in receivers.items():
            expect_payload(receiver, BINARY, f"what {name} heard")

    case(f"bytes that are not UTF-8 from {_kind} reach every client unchanged")(_binary)


@case("a text frame comes out of payload mode as text, a binary frame as binary")
def _(world):
    page = open_kind(world, "Chromium", subscribe=world.topic, publish=world.topic)
    page.publish(world.topic, b"text", binary=False)
    expect(page.receive().info["binary"], False, "the kind of the first")
    page.publish(world.topic, b"binary", binary=True)
    expect(page.receive().info["binary"], True, "the kind of the second")


@case("the envelope's data passes JSON through verbatim")
def _(world):
    listener = open_kind(world, "paho 3.1.1", subscribe=world.topic)
    client = open_kind(world, "websockets, JSON envelope")
    client.call(op="pub", topic=world.topic, data={"fan": "on", "n": [1, 2.5, None]})
    expect(json.loads(listener.receive().payload), {"fan": "on", "n": [1, 2.5, None]})


@case("payload mode with=topic puts the topic and a newline before the payload")
def _(world):
    client = world.keep(Payload(world.port, query(f"{world.topic}/#", **{"with": "topic"})))
    open_kind(world, "paho 5").publish(f"{world.topic}/a/b", b"x")
    expect_payload(client, f"{world.topic}/a/b\nx".encode())


# ---- negotiation --------------------------------------------------------------------------------------------------


@case("deflate is negotiated with Python websockets and really used")
def _(world):
    client = world.keep(Payload(world.port, query(world.topic), deflate=True))
    assert "permessage-deflate" in client.response.headers.get("Sec-WebSocket-Extensions", ""), "declined"
    payload = json.dumps([{"sensor": n, "value": 21.5} for n in range(200)]).encode()
    read, _ = _bytes_on_the_wire(world, payload, "permessage-deflate")
    assert read < len(payload) / 2, f"{len(payload)} bytes of JSON came as {read} bytes"
    open_kind(world, "paho 5").publish(world.topic, payload)
    expect_payload(client, payload)


def _bytes_on_the_wire(world, payload, extension):
    """The size of the first frame as the socket sees it, read without a client that would hide it."""
    with socket.create_connection(("127.0.0.1", world.port), 5) as wire:
        request = (
            f"GET /ws?{query(world.topic)} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Extensions: {extension}\r\n\r\n"
        )
        wire.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += wire.recv(1)
        open_kind(world, "paho 5").publish(world.topic, payload)
        first = wire.recv(65536)
        return len(first), first[0] & 0x40


@case("node ws with perMessageDeflate and Chromium negotiate deflate and hear the payload")
def _(world):
    payload = json.dumps([{"sensor": n, "value": 21.5} for n in range(200)]).encode()
    path = payload_path(world.topic, None)
    node, page = open_js(world, "ws", path, deflate=True), open_js(world, "page", path)
    for client in (node, page):
        assert "permessage-deflate" in client.opened["extensions"], client.opened
    open_js(world, "ws", payload_path(None, world.topic), deflate=True).publish(world.topic, payload)
    for client in (node, page):
        expect_payload(client, payload)


@case("without an offer nothing is compressed")
def _(world):
    client = world.keep(Payload(world.port, query(world.topic)))
    assert "Sec-WebSocket-Extensions" not in client.response.headers, "an extension nobody offered"


@case("a subprotocol is echoed as the client offered it, the first supported one wins")
def _(world):
    for offer, wanted in [
        (["raw"], "raw"),
        (["raw.json.v1"], "raw.json.v1"),
        (["raw.msgpack.v1"], "raw.msgpack.v1"),
        (["mqtt"], "mqtt"),
        (["mqttv3.1"], "mqttv3.1"),
        (["soap", "wamp", "mqtt"], "mqtt"),
        (["v10.stomp", "v12.stomp", "v11.stomp"], "v12.stomp"),
        (["raw", "mqtt"], "raw"),
        ([], None),
    ]:
        with ws_connect(world.broker.url("/ws"), subprotocols=offer or None, proxy=None) as client:
            expect(client.subprotocol, wanted, f"the answer to {offer}")


@case("an unknown subprotocol is refused with 400 and both lists")
def _(world):
    try:
        ws_connect(world.broker.url("/ws"), subprotocols=["soap"], proxy=None)
    except InvalidStatus as refused:
        expect(refused.response.status_code, 400, "the status")
        body = refused.response.body.decode()
        assert "soap" in body and "mqtt" in body and "stomp" in body, body
    else:
        raise AssertionError("it was accepted")


@case("an unknown path is refused with 404 and the valid ones")
def _(world):
    try:
        ws_connect(world.broker.url("/nowhere"), proxy=None)
    except InvalidStatus as refused:
        expect(refused.response.status_code, 404, "the status")
        assert "/ws" in refused.response.body.decode()
    else:
        raise AssertionError("it was accepted")


@case("a page sees its socket fail when no offered subprotocol is known, and the next page is fine")
def _(world):
    try:
        open_js(world, "page", "/ws", protocols=["soap"])
    except ConnectionError:
        pass
    else:
        raise AssertionError("the page's socket opened")
    expect(open_js(world, "page", "/ws", protocols=["raw"]).opened["protocol"], "raw")


# ---- properties across protocols ----------------------------------------------------------------------------------


@case("MQTT 5 user properties and content type are STOMP headers and the envelope's props")
def _(world):
    stompers = [open_kind(world, "stompjs 1.2", subscribe=world.topic), open_kind(world, "stomp.py", subscribe=world.topic)]
    raw = open_kind(world, "websockets, JSON envelope", subscribe=world.topic)
    user = [("unit", "celsius"), ("colon", "a:b\nc")]
    open_kind(world, "paho 5").publish(
        world.topic, b"21.5", properties={"user_property": user, "content_type": "application/json"}
    )
    for stomper in stompers:
        headers = stomper.receive().info["headers"]
        expect((headers["unit"], headers["colon"]), ("celsius", "a:b\nc"), "the user properties")
        expect(headers["content-type"], "application/json", "the content type")
    said = raw.receive().info
    expect((said["props"]["unit"], said["ct"]), ("celsius", "application/json"))


@case("STOMP headers are MQTT 5 user properties")
def _(world):
    receiver = open_kind(world, "mqtt.js 5", subscribe=world.topic)
    open_kind(world, "stompjs 1.2").publish(world.topic, b"x", headers={"unit": "celsius", "content-type": "text/plain"})
    properties = receiver.receive().info["properties"]
    assert ("unit", "celsius") in properties["user_property"], properties
    expect(properties["content_type"], "text/plain")


# ---- keep-alive ---------------------------------------------------------------------------------------------------


@case("pings are answered: MQTT PINGREQ, WebSocket ping from Python and from node")
def _(world):
    mqtt = open_kind(world, "mqtt.js 3.1.1")
    mqtt.ping()
    mqtt.wait_pong()
    world.keep(Payload(world.port, query(world.topic))).ping()
    node = open_kind(world, "node ws, payload mode", subscribe=world.topic)
    node.ping()
    node.wait_pong()


@case("STOMP heart-beats at the interval of both sides flow both ways and keep stomp.py and stompjs connected")
def _(world):
    world.with_broker('[stomp]\nheart_beat = ["1s", "1s"]\n')
    client = world.keep(StompPy(world.port, heartbeats=(1000, 1000)))
    page = open_js(world, "stomp", "/stomp", version="1.2", heartbeat=1000)
    assert page.opened["headers"]["heart-beat"] != "0,0", "no heart-beat was agreed"
    client.subscribe(world.topic)
    page.subscribe(world.topic)
    for _beat in range(3):
        client.beats.get(timeout=15)
    page.publish(world.topic, b"still here")
    expect_payload(client, b"still here")
    expect_payload(page, b"still here")


# ---- bad input ----------------------------------------------------------------------------------------------------


def _bystander(world):
    """Somebody else, who must not notice."""
    client = open_kind(world, "paho 5", subscribe=f"{world.topic}/bystander")

    def unharmed():
        client.publish(f"{world.topic}/bystander", b"unharmed")
        expect_payload(client, b"unharmed", "what the bystander heard")

    return unharmed


@case("a bad STOMP frame gets ERROR with a message and then the close, nobody else notices")
def _(world):
    unharmed = _bystander(world)
    with ws_connect(world.broker.url("/stomp"), subprotocols=["v12.stomp"], proxy=None) as client:
        client.send("CONNECT\naccept-version:1.2\nhost:localhost\n\n\0")
        assert client.recv(timeout=5).startswith("CONNECTED\n")
        client.send("FLY\nto:moon\n\n\0")
        frame = client.recv(timeout=5)
        assert frame.startswith("ERROR\n") and "\nmessage:" in frame, frame
        _expect_close(client)
    unharmed()


@case("a bad MQTT packet closes that connection, MQTT 5 with DISCONNECT 0x81 first, nobody else notices")
def _(world):
    unharmed = _bystander(world)
    # CONNECT 3.1.1 and 5, then a SUBSCRIBE whose reserved flags are 0.
    for connect, last in [
        (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", None),
        (b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01b", 0x81),
    ]:
        with ws_connect(world.broker.url("/mqtt"), subprotocols=["mqtt"], proxy=None) as client:
            client.send(connect)
            assert client.recv(timeout=5)[0] == 0x20
            client.send(b"\x80\x06\x00\x01\x00\x01a\x00")
            if last is not None:
                packet = client.recv(timeout=5)
                expect((packet[0], packet[2]), (0xE0, last), "the DISCONNECT")
            _expect_close(client)
    unharmed()


@case("a text frame to MQTT is closed, bad UTF-8 with 1007, a publication nobody enabled with 4003")
def _(world):
    unharmed = _bystander(world)
    with ws_connect(world.broker.url("/ws?" + query(world.topic)), proxy=None) as client:
        client.send("x")
        expect(_expect_close(client), 4003, "the close code of a read-only socket")
    with ws_connect(world.broker.url("/mqtt"), subprotocols=["mqtt"], proxy=None) as client:
        client.send("text")
        _expect_close(client)
    with ws_connect(world.broker.url("/ws?" + query(pub=world.topic)), proxy=None) as client:
        client.send(b"\xff\xfe", text=True)
        expect(_expect_close(client), 1007, "the close code of bad UTF-8")
    unharmed()


@case("a message above the limit is closed with 1009")
def _(world):
    with ws_connect(world.broker.url("/ws?" + query(pub=world.topic)), proxy=None) as client:
        try:
            client.send(b"x" * (2 << 20))
        except Exception:  # noqa: BLE001 - the close may come in the middle of it
            pass
        expect(_expect_close(client), 1009, "the close code")


@case("an envelope that is not one gets err with a code, and the connection stays")
def _(world):
    client = open_kind(world, "websockets, JSON envelope")
    client.say({"op": "sub", "id": 5, "topic": "a/#/b"})
    said = client.answer()
    expect((said["op"], said["id"], said["code"]), ("err", 5, "bad_topic"))
    assert said["reason"]
    client.subscribe(world.topic)


@case("an MQTT 5 SUBSCRIBE to a bad filter is refused")
def _(world):
    try:
        open_kind(world, "mqtt.js 5").subscribe("a/#/b")
    except ConnectionError:
        pass
    else:
        raise AssertionError("the filter was accepted")


def _expect_close(client):
    """Reads to the end; the close code, or None when the peer only hung up."""
    try:
        while True:
            client.recv(timeout=5)
    except TimeoutError:
        raise AssertionError("it was not closed within 5 s") from None
    except Exception:  # noqa: BLE001 - ConnectionClosed, in whichever form
        return client.close_code


# ---- the graceful stop: it ends the broker ------------------------------------------------------------------


@case("on SIGTERM every client is told in its own words, and the broker ends with 0", alone=True)
def _(world):
    payload = world.keep(Payload(world.port, query(world.topic)))
    envelope = open_kind(world, "websockets, JSON envelope")
    page = open_kind(world, "Chromium", subscribe=world.topic)
    stomper = open_kind(world, "stompjs 1.2", subscribe=world.topic)
    mqtt = open_kind(world, "mqtt.js 5", subscribe=world.topic)
    world.broker.terminate()
    for client in (payload, envelope):
        assert client.wait_closed(10)["code"] in (1001, 1012), "raw was not told"
    assert page.wait_closed(10)["code"] in (1001, 1012), "the page was not told"
    assert stomper.wait_closed(10).get("error"), "STOMP got no ERROR"
    expect(mqtt.wait_closed(10).get("reasonCode"), 0x8B, "the DISCONNECT of MQTT 5")
    expect(world.broker.wait(), 0, "the exit code")

