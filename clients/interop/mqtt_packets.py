"""An MQTT client at the level of packets, over WebSocket: says what libraries do not let anyone say, and hides nothing.

MQTT 3.1.1 and 5.0 as written by OASIS; the names of properties are the standard's, in lower case. It answers QoS 1 and 2
by itself unless it is told not to (`manual`). No expectations are in here, those are in the cases.
"""

import time
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as ws_connect

PATIENCE_SECONDS = 10.0
# Long enough for a message that should not come to come after all, short enough to ask often.
SILENCE_SECONDS = 0.4

KINDS = {
    1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 8: "SUBSCRIBE",
    9: "SUBACK", 10: "UNSUBSCRIBE", 11: "UNSUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT", 15: "AUTH",
}
NUMBERS = {kind: number for number, kind in KINDS.items()}

# [MQTT5 2.2.2.2]
PROPERTIES = {
    1: ("payload_format_indicator", "byte"), 2: ("message_expiry_interval", "u32"), 3: ("content_type", "text"),
    8: ("response_topic", "text"), 9: ("correlation_data", "data"), 11: ("subscription_identifier", "varint"),
    17: ("session_expiry_interval", "u32"), 18: ("assigned_client_identifier", "text"), 19: ("server_keep_alive", "u16"),
    21: ("authentication_method", "text"), 22: ("authentication_data", "data"), 23: ("request_problem_information", "byte"),
    24: ("will_delay_interval", "u32"), 25: ("request_response_information", "byte"), 26: ("response_information", "text"),
    28: ("server_reference", "text"), 31: ("reason_string", "text"), 33: ("receive_maximum", "u16"),
    34: ("topic_alias_maximum", "u16"), 35: ("topic_alias", "u16"), 36: ("maximum_qos", "byte"),
    37: ("retain_available", "byte"), 38: ("user_property", "pair"), 39: ("maximum_packet_size", "u32"),
    40: ("wildcard_subscription_available", "byte"), 41: ("subscription_identifier_available", "byte"),
    42: ("shared_subscription_available", "byte"),
}
PROPERTY_NUMBERS = {name: (number, form) for number, (name, form) in PROPERTIES.items()}
# These may be there more than once, so they are always lists.
REPEATED = ("user_property", "subscription_identifier")


def varint(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def data(value):
    value = value.encode() if isinstance(value, str) else value
    return len(value).to_bytes(2, "big") + value


def one_property(name, value):
    number, form = PROPERTY_NUMBERS[name]
    if name in REPEATED and isinstance(value, list):
        return b"".join(one_property(name, each) for each in value)
    if form == "pair":
        return bytes([number]) + data(value[0]) + data(value[1])
    if form == "varint":
        return bytes([number]) + varint(value)
    width = {"byte": 1, "u16": 2, "u32": 4}.get(form)
    return bytes([number]) + (int(value).to_bytes(width, "big") if width else data(value))


def properties_bytes(version, properties):
    if version < 5:
        return b""
    body = b"".join(one_property(name, value) for name, value in (properties or {}).items())
    return varint(len(body)) + body


def packet(kind, body=b"", flags=0):
    return bytes([NUMBERS[kind] << 4 | flags]) + varint(len(body)) + body


@dataclass
class Packet:
    """One packet from the broker; fields that its kind does not have keep their defaults."""

    kind: str
    flags: int = 0
    id: int | None = None
    reason: int = 0
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    codes: list = field(default_factory=list)
    properties: dict = field(default_factory=dict)

    @property
    def dup(self):
        return bool(self.flags & 8)

    @property
    def qos(self):
        return self.flags >> 1 & 3

    @property
    def retain(self):
        return bool(self.flags & 1)


class Reader:
    """Takes a packet's body apart."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, count):
        part = self.body[self.at : self.at + count]
        assert len(part) == count, "the packet ends too early"
        self.at += count
        return part

    def number(self, width):
        return int.from_bytes(self.take(width), "big")

    def data(self):
        return self.take(self.number(2))

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def rest(self):
        return self.take(len(self.body) - self.at)

    def ended(self):
        return self.at == len(self.body)

    def properties(self):
        end = self.varint() + self.at
        found = {}
        while self.at < end:
            name, form = PROPERTIES[self.varint()]
            if form == "pair":
                value = (self.data().decode(), self.data().decode())
            elif form == "varint":
                value = self.varint()
            elif form in ("text", "data"):
                value = self.data().decode() if form == "text" else self.data()
            else:
                value = self.number({"byte": 1, "u16": 2, "u32": 4}[form])
            if name in REPEATED:
                found.setdefault(name, []).append(value)
            else:
                assert name not in found, f"{name} is there twice"
                found[name] = value
        assert self.at == end, "a property reaches over the end of the properties"
        return found


def parse(first, body, version):
    kind = KINDS[first >> 4]
    it, reader = Packet(kind, first & 15), Reader(body)
    if kind == "CONNACK":
        it.session_present, it.reason = bool(reader.number(1)), reader.number(1)
    elif kind == "PUBLISH":
        it.topic = reader.data().decode()
        it.id = reader.number(2) if it.qos else None
    elif kind in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK"):
        it.id = reader.number(2)
    if kind in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "DISCONNECT", "AUTH") and not reader.ended():
        it.reason = reader.number(1)
    if version == 5 and not reader.ended():
        it.properties = reader.properties()
    if kind == "PUBLISH":
        it.payload = reader.rest()
    elif kind in ("SUBACK", "UNSUBACK"):
        it.codes = list(reader.rest())
    assert reader.ended(), f"{kind} has bytes behind its end"
    return it


class Packets:
    """One connection. `open()` does the CONNECT; everything else is said by the case."""

    def __init__(self, port, version=5, manual=False):
        self._it = ws_connect(
            f"ws://127.0.0.1:{port}/mqtt", subprotocols=["mqtt"], compression=None, max_size=None, proxy=None
        )
        self.version, self.manual = version, manual
        self._buffer, self._id, self._early = b"", 0, []
        self.connack = None

    # ---- what goes out

    def send(self, data):
        self._it.send(data)

    def connect(self, client_id="", clean=True, keepalive=60, will=None, user=None, password=None, properties=None):
        """CONNECT, and whatever packet answers it."""
        flags, payload = 2 * clean, data(client_id)
        if will:
            flags |= 4 | will.get("qos", 0) << 3 | will.get("retain", False) << 5
            payload += properties_bytes(self.version, will.get("properties")) + data(will["topic"]) + data(will["payload"])
        for bit, value in ((0x80, user), (0x40, password)):
            if value is not None:
                flags |= bit
                payload += data(value)
        head = data("MQTT") + bytes([self.version, flags]) + keepalive.to_bytes(2, "big")
        self.send(packet("CONNECT", head + properties_bytes(self.version, properties) + payload))
        return self.read()

    def open(self, *args, **more):
        """CONNECT that must succeed."""
        self.connack = self.connect(*args, **more)
        assert self.connack.kind == "CONNACK" and self.connack.reason == 0, self.connack
        return self

    def next_id(self):
        self._id = self._id % 65535 + 1
        return self._id

    def send_publish(self, topic, payload=b"", qos=0, retain=False, dup=False, id=None, **properties):
        """PUBLISH without waiting for its acknowledgement; its packet identifier."""
        id = id or (self.next_id() if qos else None)
        body = data(topic) + (id.to_bytes(2, "big") if qos else b"") + properties_bytes(self.version, properties) + payload
        self.send(packet("PUBLISH", body, dup << 3 | qos << 1 | retain))
        return id

    def publish(self, topic, payload=b"", qos=0, retain=False, **properties):
        """PUBLISH to its end; the reason code that settled it."""
        id = self.send_publish(topic, payload, qos, retain, **properties)
        if qos == 0:
            return 0
        answer = self.read_answer("PUBACK" if qos == 1 else "PUBREC", id)
        if qos == 1 or answer.reason >= 0x80:
            return answer.reason
        self.ack("PUBREL", id)
        return self.read_answer("PUBCOMP", id).reason

    def send_all(self, topic, messages):
        """QoS 2 publications in one go, to their end; what arrives meanwhile is kept for `receive`."""
        ids = [self.send_publish(topic, payload, 2) for payload in messages]
        for id in ids:
            self.read_answer("PUBREC", id)
            self.ack("PUBREL", id)
        for id in ids:
            self.read_answer("PUBCOMP", id)

    def ack(self, kind, id, reason=None):
        self.send(packet(kind, id.to_bytes(2, "big") + (bytes([reason]) if reason is not None else b""), 2 * (kind == "PUBREL")))

    def send_subscribe(self, *filters, **properties):
        id = self.next_id()
        body = id.to_bytes(2, "big") + properties_bytes(self.version, properties)
        self.send(packet("SUBSCRIBE", body + b"".join(data(topic) + bytes([options]) for topic, options in filters), 2))
        return id

    def subscribe(self, *filters, **properties):
        """SUBSCRIBE to pairs of filter and options byte (or QoS); the codes of the SUBACK."""
        return self.read_answer("SUBACK", self.send_subscribe(*filters, **properties)).codes

    def unsubscribe(self, *filters):
        id = self.next_id()
        body = id.to_bytes(2, "big") + properties_bytes(self.version, None)
        self.send(packet("UNSUBSCRIBE", body + b"".join(data(topic) for topic in filters), 2))
        return self.read_answer("UNSUBACK", id).codes

    def disconnect(self, reason=None, **properties):
        body = b""
        if self.version == 5 and (reason is not None or properties):
            body = bytes([reason or 0]) + properties_bytes(5, properties)
        self.send(packet("DISCONNECT", body))
        self._it.close()

    def cut(self):
        """Ends the TCP connection: no DISCONNECT, no Close frame."""
        self._it.socket.shutdown(2)
        self._it.close()

    close = cut

    # ---- what comes in

    def read(self, timeout=PATIENCE_SECONDS):
        """The next packet, whatever it is."""
        deadline = time.monotonic() + timeout
        while True:
            whole = self._whole_packet()
            if whole:
                return parse(*whole, self.version)
            frame = self._it.recv(timeout=max(0.0, deadline - time.monotonic()))
            assert isinstance(frame, bytes), "MQTT came in a text frame [MQTT-6.0.0-1]"
            self._buffer += frame

    def _whole_packet(self):
        shift = length = 0
        for at, byte in enumerate(self._buffer[1:5], 1):
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                end = at + 1 + length
                if len(self._buffer) < end:
                    return None
                first, body, self._buffer = self._buffer[0], self._buffer[at + 1 : end], self._buffer[end:]
                return first, body
        return None

    def read_answer(self, kind, id):
        """The acknowledgement of this identifier; publications before it are kept for `receive`."""
        while True:
            it = self.read()
            if it.kind == kind and it.id == id:
                return it
            assert it.kind in ("PUBLISH", "PUBREL"), f"{it} came instead of {kind} {id}"
            self._early.append(it)

    def receive(self, timeout=PATIENCE_SECONDS):
        """The next PUBLISH, acknowledged unless the connection is manual."""
        deadline = time.monotonic() + timeout
        while True:
            it = self._early.pop(0) if self._early else self.read(max(0.0, deadline - time.monotonic()))
            if it.kind == "PUBREL":
                if not self.manual:
                    self.ack("PUBCOMP", it.id)
                continue
            assert it.kind == "PUBLISH", f"{it} came instead of a PUBLISH"
            if it.qos and not self.manual:
                self.ack("PUBACK" if it.qos == 1 else "PUBREC", it.id)
            return it

    def receive_all(self, count):
        return [self.receive() for _ in range(count)]

    def silent(self, seconds=SILENCE_SECONDS):
        """That no PUBLISH comes for a while."""
        try:
            it = self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"{it} came, and nothing should have")

    def end_of(self, timeout=PATIENCE_SECONDS):
        """How the broker ended it: the reason of its DISCONNECT or None, once the connection is closed."""
        reason = None
        try:
            while True:
                it = self.read(timeout)
                if it.kind == "DISCONNECT":
                    reason = it.reason
        except ConnectionClosed:
            return reason
        except TimeoutError:
            raise AssertionError(f"the broker did not end it within {timeout} s") from None
