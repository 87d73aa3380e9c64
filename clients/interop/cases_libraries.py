"""What MQTT libraries that nobody here wrote can do with the broker, each as far as it offers it."""

import time

from cases_packets import packets, payloads
from mqtt_libraries import LIBRARIES, can
from relay import Relay
from world import case, expect, expect_payload

VERSIONS = {4: "3.1.1", 5: "5"}
PROPERTIES = {
    "payload_format_indicator": 1, "content_type": "text/plain", "response_topic": "answer/here",
    "correlation_data": bytes(range(256)), "user_property": [("b", "1"), ("b", "2"), ("a", "grüße"), ("c", "")],
}


def each(sentence, versions=(4, 5), needs=()):
    """Enters the case for every library that offers what it needs."""

    def enter(function):
        for library, version in LIBRARIES:
            if version in versions and all(can(library, what) for what in needs):
                it = Using(library, version)
                case(f"{library}, MQTT {VERSIONS[version]}: {sentence}")(lambda world, it=it: function(it.within(world)))

    return enter


class Using:
    """A world in which `open` is one library's client."""

    def __init__(self, library, version, world=None):
        self.library, self.version, self.world = library, version, world

    def within(self, world):
        return Using(self.library, self.version, world)

    @property
    def topic(self):
        return self.world.topic

    def can(self, what):
        return can(self.library, what)

    def open(self, name=None, via=None, **options):
        name = self.world.new_name() if name is None else f"{self.world.name}-{name}"
        return self.world.keep(LIBRARIES[self.library, self.version](via or self.world.broker, self.world, name, **options))

    def durable(self, name="durable", clean=False, expiry=300, **options):
        """A client whose session outlives its connection."""
        if self.version == 5:
            options["properties"] = {"session_expiry_interval": expiry, **options.get("properties", {})}
        return self.open(name, clean=clean, **options)

    def packets(self, **options):
        """Our own packet-level client, for the other side."""
        return packets(self.world, self.version, **options)

    def expect_session(self, client, wanted):
        if self.can("connack"):
            expect(bool(client.session_present), wanted, "session present")


def numbers(count):
    return [str(number).encode() for number in range(count)]


def is_silent(client, seconds=0.4):
    try:
        message = client.receive(seconds)
    except AssertionError:
        return
    raise AssertionError(f"{message} came, and nothing should have")


@each("200 QoS 2 publications in one go arrive once each and in order, in both directions")
def _(using):
    other = using.packets()
    other.subscribe((f"{using.topic}/out", 2))
    client = using.open()
    expect(client.subscribe(f"{using.topic}/in", 2), 2, "the granted QoS")
    client.publish_all([(f"{using.topic}/out", payload, 2) for payload in numbers(200)])
    expect(payloads(other.receive_all(200)), numbers(200), "what the client sent")
    other.silent(0.1)
    sender = using.open()
    sender.publish_all([(f"{using.topic}/in", payload, 2) for payload in numbers(200)])
    for payload in numbers(200):
        expect(expect_payload(client, payload).info["qos"], 2, "the QoS")
    is_silent(client)


@each("QoS 0, 1 and 2 mixed in one go all arrive, each QoS in order")
def _(using):
    receiver = using.open()
    receiver.subscribe(using.topic, 2)
    sent = [(using.topic, payload, number % 3) for number, payload in enumerate(numbers(150))]
    using.open().publish_all(sent)
    heard = [receiver.receive() for _ in sent]
    for qos in range(3):
        wanted = [payload for _, payload, sent_qos in sent if sent_qos == qos]
        expect([it.payload for it in heard if it.info["qos"] == qos], wanted, f"what came with QoS {qos}")


@each("a session survives a goodbye and a cut, what was published meanwhile arrives, and a clean start ends it")
def _(using):
    sender = using.packets()
    for leave in ("close", "kill"):
        client = using.durable(leave)
        using.expect_session(client, False)
        client.subscribe(f"{using.topic}/{leave}", 2)
        getattr(client, leave)()
        for number, payload in enumerate(numbers(30)):
            sender.publish(f"{using.topic}/{leave}", payload, 1 + number % 2)
        client = using.durable(leave)
        using.expect_session(client, True)
        heard = [client.receive() for _ in range(30)]
        for qos in (1, 2):
            wanted = [payload for number, payload in enumerate(numbers(30)) if 1 + number % 2 == qos]
            expect([it.payload for it in heard if it.info["qos"] == qos], wanted, f"what waited with QoS {qos}")
        client.close()
        client = using.durable(leave, clean=True)
        using.expect_session(client, False)
        sender.publish(f"{using.topic}/{leave}", b"lost", 1)
        is_silent(client)


@each("QoS 2 stays exactly once when the network is cut in the middle and the client reconnects by itself", needs=["reconnect", "exactly once"])
def _(using):
    relay = using.world.keep(Relay(using.world.port))
    other = using.packets()
    other.subscribe((f"{using.topic}/out", 2))
    client = using.durable(reconnect=True, via=relay)
    client.subscribe(f"{using.topic}/in", 2)
    for part in range(3):
        sent = [f"{part} {number}".encode() for number in range(100)]
        begun = client.begin_all([(f"{using.topic}/out", payload, 2) for payload in sent])
        other.send_all(f"{using.topic}/in", sent[:50])
        out = payloads(other.receive_all(5))
        relay.cut()
        out += payloads(other.receive_all(95))
        expect(sorted(out), sorted(sent), "what the client sent")
        other.silent(0.1)
        # Sent after the cut: who hears it has connected again.
        other.publish(f"{using.topic}/in", b"connected again", 2)
        heard = [client.receive(20).payload for _ in range(51)]
        expect(sorted(heard), sorted([*sent[:50], b"connected again"]), "what the client heard")
        is_silent(client, 0.1)
        # mqtt.js loses what is published while it resends, when it is cut again meanwhile.
        client.finish_all(begun)
    assert relay.accepted >= 4, f"the client connected {relay.accepted} times"


@each("QoS 1 loses nothing when the network is cut in the middle and the client reconnects by itself", needs=["reconnect"])
def _(using):
    relay = using.world.keep(Relay(using.world.port))
    other = using.packets()
    other.subscribe((f"{using.topic}/out", 1))
    client = using.durable(reconnect=True, via=relay)
    client.subscribe(f"{using.topic}/in", 1)
    for part in range(3):
        sent = {f"{part} {number}".encode() for number in range(50)}
        begun = client.begin_all([(f"{using.topic}/out", payload, 1) for payload in sent])
        for payload in sent:
            other.publish(f"{using.topic}/in", payload, 1)
        out = {other.receive().payload}
        relay.cut()
        # Some may come twice, and those of the part before too.
        while not sent <= out:
            out.add(other.receive().payload)
        # Sent after the cut: who hears it has connected again.
        last = f"{part} connected again".encode()
        sent.add(last)
        other.publish(f"{using.topic}/in", last, 1)
        heard = set()
        while not sent <= heard:
            heard.add(client.receive(20).payload)
        # mqtt.js loses what is published while it resends, when it is cut again meanwhile.
        client.finish_all(begun)
    assert relay.accepted >= 4, f"the client connected {relay.accepted} times"


@each("a session of one second is gone after two", versions=(5,))
def _(using):
    client = using.durable(expiry=1)
    client.subscribe(using.topic, 1)
    client.close()
    time.sleep(2.1)
    using.packets().publish(using.topic, b"lost", 1)
    client = using.durable(expiry=1)
    using.expect_session(client, False)
    is_silent(client)


@each("what was not acknowledged when the connection was cut comes again, DUP set, with its identifier", needs=["manual"])
def _(using):
    client = using.durable(manual=True)
    client.subscribe(using.topic, 1)
    using.packets().publish(using.topic, b"again", 1)
    first = expect_payload(client, b"again")
    expect(first.info["dup"], False, "DUP of the first")
    client.kill()
    client = using.durable(manual=True)
    second = expect_payload(client, b"again")
    expect((second.info["dup"], second.info["id"]), (True, first.info["id"]), "DUP and identifier of the second")
    client.ack(second)
    # The broker has read the acknowledgement once it has answered what came after it.
    client.publish(f"{using.topic}/after", b"", 1)
    client.kill()
    is_silent(using.durable())


@each("a second connection with the same client identifier takes over")
def _(using):
    first = using.durable()
    first.subscribe(using.topic, 1)
    second = using.durable()
    ended = first.wait_closed()
    if using.version == 5 and using.can("reason"):
        expect(ended.get("reasonCode"), 0x8E, "the reason")
    using.expect_session(second, True)
    using.packets().publish(using.topic, b"for the second", 1)
    expect_payload(second, b"for the second")


@each("a will is published when the client is cut, and not when it says goodbye")
def _(using):
    listener = using.packets()
    listener.subscribe((f"{using.topic}/#", 2))
    for end in ("close", "kill"):
        getattr(using.open(will={"topic": f"{using.topic}/{end}", "payload": b"gone", "qos": 2, "retain": True}), end)()
    it = listener.receive()
    expect((it.topic, it.payload, it.qos), (f"{using.topic}/kill", b"gone", 2))
    listener.silent()
    late = using.open()
    late.subscribe(f"{using.topic}/#", 1)
    expect(expect_payload(late, b"gone").info["retain"], True, "RETAIN")


@each("a will has its properties and its delay, and a reconnect cancels it", versions=(5,))
def _(using):
    listener = using.packets()
    listener.subscribe((f"{using.topic}/#", 1))

    def will(name):
        properties = {**PROPERTIES, "will_delay_interval": 1}
        return {"topic": f"{using.topic}/{name}", "payload": b"gone", "qos": 1, "properties": properties}

    start = time.monotonic()
    using.durable("late", will=will("late")).kill()
    using.durable("cancelled", will=will("cancelled")).kill()
    using.durable("cancelled")
    it = listener.receive()
    assert time.monotonic() - start > 0.9, "it came before its delay"
    expect((it.topic, it.properties), (f"{using.topic}/late", PROPERTIES))
    listener.silent(1)


@each("retained messages come through wildcards with RETAIN, live ones without, an empty one deletes")
def _(using):
    sender = using.open()
    for name in "ab":
        sender.publish(f"{using.topic}/{name}", name.encode(), 1, True)
    for filter, wanted in ((f"{using.topic}/a", ["a"]), (f"{using.topic}/+", ["a", "b"]), (f"{using.topic}/#", ["a", "b"])):
        client = using.open()
        client.subscribe(filter, 1)
        heard = sorted((it.topic, it.payload, bool(it.info["retain"])) for it in (client.receive() for _ in wanted))
        expect(heard, [(f"{using.topic}/{name}", name.encode(), True) for name in wanted], f"what {filter} gets")
        sender.publish(f"{using.topic}/a", b"a", 1, True)
        expect(bool(expect_payload(client, b"a").info["retain"]), False, "RETAIN of a live message")
    sender.publish(f"{using.topic}/a", b"", 1, True)
    late = using.open()
    late.subscribe(f"{using.topic}/#", 1)
    expect_payload(late, b"b")
    is_silent(late)


@each("retain handling, retain as published and no local do what they say", versions=(5,))
def _(using):
    client, other = using.open(), using.packets()
    client.publish(using.topic, b"kept", 1, True)
    for handling, comes in ((2, False), (1, False), (0, True)):
        client.subscribe(using.topic, 1, retain_handling=handling)
        if comes:
            expect_payload(client, b"kept", f"what comes with retain handling {handling}")
        is_silent(client, 0.2)
    client.subscribe(using.topic, 1, retain_handling=2, retain_as_published=True, no_local=True)
    client.publish(using.topic, b"own", 1)
    other.publish(using.topic, b"as published", 1, retain=True)
    expect(bool(expect_payload(client, b"as published").info["retain"]), True, "RETAIN")


@each("overlapping subscriptions bring one copy with the identifiers of all", versions=(5,))
def _(using):
    client = using.open()
    client.subscribe(f"{using.topic}/#", 1, subscription_identifier=5)
    client.subscribe(f"{using.topic}/+", 2, subscription_identifier=70_000)
    using.packets().publish(f"{using.topic}/a", b"x", 2)
    it = expect_payload(client, b"x")
    expect((it.info["qos"], sorted(it.info["properties"]["subscription_identifier"])), (2, [5, 70_000]))
    is_silent(client)


@each("two members of a shared subscription share, and what one leaves behind goes to the other")
def _(using):
    members = [using.open(), using.open()]
    for member in members:
        member.subscribe(f"$share/group/{using.topic}", 1)
    sender = using.packets()
    for payload in numbers(20):
        sender.publish(using.topic, payload, 1)
    heard = [member.receive().payload for member in members for _ in range(10)]
    expect(sorted(heard), sorted(numbers(20)), "what the two share")
    members[0].close()
    for payload in numbers(5):
        sender.publish(using.topic, payload, 1)
    expect([members[1].receive().payload for _ in range(5)], numbers(5), "what the one that stays gets")
    if not using.can("manual"):
        return
    lazy = using.open(manual=True)
    lazy.subscribe(f"$share/group/{using.topic}", 1)
    sender.publish(using.topic, b"one", 1)
    sender.publish(using.topic, b"two", 1)
    left = lazy.receive().payload
    lazy.kill()
    expect(sorted([members[1].receive().payload, members[1].receive().payload]), [b"one", b"two"], f"with {left} left behind")


@each("all properties of a publication go through, out and in", versions=(5,))
def _(using):
    client, other = using.open(), using.packets()
    client.subscribe(f"{using.topic}/in", 1)
    other.subscribe((f"{using.topic}/out", 1))
    client.publish(f"{using.topic}/out", "grüße".encode(), 1, properties=PROPERTIES)
    expect(other.receive().properties, PROPERTIES, "what the client sent")
    other.publish(f"{using.topic}/in", "grüße".encode(), 1, **PROPERTIES)
    expect(client.receive().info["properties"], PROPERTIES, "what the client heard")


@each("a message that waits has less time left, and one whose time is over does not come", versions=(5,))
def _(using):
    receiver, sender = using.durable(), using.open()
    receiver.subscribe(using.topic, 1)
    receiver.close()
    sender.publish(using.topic, b"short", 1, properties={"message_expiry_interval": 1})
    sender.publish(using.topic, b"long", 1, properties={"message_expiry_interval": 60})
    time.sleep(2.1)
    receiver = using.durable()
    left = expect_payload(receiver, b"long").info["properties"]["message_expiry_interval"]
    assert 50 <= left <= 58, f"{left} s are left of 60"
    is_silent(receiver)


@each("topic aliases that the client makes are understood", versions=(5,))
def _(using):
    other = using.packets()
    other.subscribe((f"{using.topic}/+", 1))
    client = using.open()
    for name in ("a", "b"):
        client.publish(f"{using.topic}/{name}", b"x", 1, properties={"topic_alias": 3})
        expect(other.receive().topic, f"{using.topic}/{name}")


@each("topic aliases that the broker makes are understood", versions=(5,), needs=["aliases"])
def _(using):
    client = using.open(properties={"topic_alias_maximum": 2})
    client.subscribe(f"{using.topic}/+", 2)
    other = using.packets()
    known, used = {}, 0
    for number, payload in enumerate(numbers(30)):
        topic = f"{using.topic}/{'abc'[number % 3]}"
        other.publish(topic, payload, number % 2)
        it = expect_payload(client, payload)
        alias = it.info["properties"].get("topic_alias")
        used += alias is not None
        # mqtt.js says the topic itself, paho-mqtt and rumqttc leave that to the application.
        known[alias] = it.topic or known[alias]
        expect(known[alias], topic)
    assert used >= 10, f"only {used} of 30 deliveries had an alias"


@each("with a Receive Maximum of 1 all messages arrive, one after the other", versions=(5,))
def _(using):
    client = using.open(properties={"receive_maximum": 1})
    client.subscribe(using.topic, 2)
    other = using.packets()
    for number, payload in enumerate(numbers(40)):
        other.publish(using.topic, payload, 1 + number % 2)
    for payload in numbers(40):
        expect_payload(client, payload)


@each("messages above the client's Maximum Packet Size are left out, the connection stays", versions=(5,))
def _(using):
    client = using.open(properties={"maximum_packet_size": 500})
    client.subscribe(using.topic, 1)
    other = using.packets()
    for payload in (b"small", b"x" * 600, b"small too"):
        other.publish(using.topic, payload, 1)
    for payload in (b"small", b"small too"):
        expect_payload(client, payload)


@each("request and response with the response information of CONNACK", versions=(5,), needs=["connack"])
def _(using):
    using.world.with_broker('[mqtt]\nresponse_information = "answers/"\n')
    asker, server = using.open(properties={"request_response_information": 1}), using.open()
    information = asker.properties["response_information"]
    server.subscribe(f"{using.topic}/ask", 1)
    asker.subscribe(information, 1)
    properties = {"response_topic": information, "correlation_data": b"\0\xff"}
    asker.publish(f"{using.topic}/ask", b"2+2", 1, properties=properties)
    asked = server.receive().info["properties"]
    server.publish(asked["response_topic"], b"4", 1, properties={"correlation_data": asked["correlation_data"]})
    expect(expect_payload(asker, b"4").info["properties"], {"correlation_data": b"\0\xff"})


@each("the keep-alive that the broker sets is kept to: the client stays connected", versions=(5,))
def _(using):
    using.world.with_broker('[mqtt]\nkeepalive_max = "2s"\n')
    client = using.open(keepalive=60)
    if using.can("connack"):
        expect(client.properties["server_keep_alive"], 2)
    client.subscribe(using.topic, 1)
    time.sleep(4)
    using.packets(keepalive=1).publish(using.topic, b"still here", 1)
    expect_payload(client, b"still here")


@each("$SYS can be read")
def _(using):
    client = using.open()
    for name in ("uptime", "version", "clients/connected"):
        client.subscribe(f"$SYS/broker/{name}")
        it = client.receive()
        expect((it.topic, bool(it.payload)), (f"$SYS/broker/{name}", True))
