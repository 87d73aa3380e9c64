"""MQTT 3.1.1 and 5 packet by packet, what both versions have: sessions, redelivery, QoS 2, wills, retained messages."""

from mqtt_packets import Packets, data, packet
from websockets.exceptions import ConnectionClosed
from world import case, expect

NAMES = {4: "3.1.1", 5: "5"}
FOR_LONG = 300


def both(sentence):
    """Enters the case once for each version."""

    def enter(function):
        for version in NAMES:
            case(f"packets, MQTT {NAMES[version]}: {sentence}")(lambda world, version=version: function(world, version))

    return enter


def packets(world, version=5, manual=False, client_id=None, **connect):
    """A connection that is open; a client identifier of its own unless it is given one."""
    it = world.keep(Packets(world.port, version, manual))
    return it.open(world.new_name() if client_id is None else client_id, **connect)


def durable(world, version, name="durable", clean=False, expiry=FOR_LONG, manual=False, **connect):
    """A connection whose session outlives it."""
    properties = {"session_expiry_interval": expiry, **connect.pop("properties", {})} if version == 5 else None
    return packets(world, version, manual, f"{world.name}-{name}", clean=clean, properties=properties, **connect)


def payloads(received):
    return [it.payload for it in received]


@both("publications at each QoS reach a subscription of each QoS at the lower of the two")
def _(world, version):
    receiver = packets(world, version)
    expect(receiver.subscribe(*((f"{world.topic}/{qos}/+", qos) for qos in range(3))), [0, 1, 2], "the codes")
    sender = packets(world, version)
    for granted in range(3):
        for qos in range(3):
            sender.publish(f"{world.topic}/{granted}/{qos}", b"x", qos)
            it = receiver.receive()
            expect((it.topic, it.qos), (f"{world.topic}/{granted}/{qos}", min(qos, granted)))


@both("200 QoS 2 publications in one go arrive once each and in order, in both directions")
def _(world, version):
    receiver = packets(world, version)
    receiver.subscribe((world.topic, 2))
    sender = packets(world, version)
    ids = [sender.send_publish(world.topic, str(number).encode(), 2) for number in range(200)]
    for id in ids:
        sender.read_answer("PUBREC", id)
        sender.ack("PUBREL", id)
    for id in ids:
        sender.read_answer("PUBCOMP", id)
    expect(payloads(receiver.receive_all(200)), [str(number).encode() for number in range(200)])
    receiver.silent()


@both("a QoS 2 publication sent again before its PUBREL, on the same connection or the next, is one message")
def _(world, version):
    receiver = packets(world, version)
    receiver.subscribe((world.topic, 2))
    sender = durable(world, version)
    id = sender.send_publish(world.topic, b"once", 2)
    sender.read_answer("PUBREC", id)
    sender.send_publish(world.topic, b"once", 2, dup=True, id=id)
    sender.read_answer("PUBREC", id)
    sender.cut()
    sender = durable(world, version)
    assert sender.connack.session_present, "the session was not kept"
    sender.send_publish(world.topic, b"once", 2, dup=True, id=id)
    sender.read_answer("PUBREC", id)
    sender.ack("PUBREL", id)
    sender.read_answer("PUBCOMP", id)
    # The identifier is free again: this is another message.
    sender.send_publish(world.topic, b"twice", 2, id=id)
    expect(payloads(receiver.receive_all(2)), [b"once", b"twice"])
    receiver.silent()


@both("what was not acknowledged comes again, DUP set, with the same identifiers in the same order")
def _(world, version):
    receiver = durable(world, version, manual=True)
    receiver.subscribe((f"{world.topic}/#", 2))
    sender = packets(world, version)
    for number, qos in enumerate((1, 2, 1, 2)):
        sender.publish(f"{world.topic}/{number}", str(number).encode(), qos)
    first = receiver.receive_all(4)
    expect([it.dup for it in first], [False] * 4, "DUP of the first deliveries")
    receiver.cut()
    receiver = durable(world, version, manual=True)
    again = receiver.receive_all(4)
    expect([(it.id, it.payload, it.qos, it.dup) for it in again], [(it.id, it.payload, it.qos, True) for it in first])
    receiver.silent()


@both("after PUBREC it is PUBREL that comes again, and after PUBCOMP nothing")
def _(world, version):
    receiver = durable(world, version, manual=True)
    receiver.subscribe((world.topic, 2))
    packets(world, version).publish(world.topic, b"x", 2)
    it = receiver.receive()
    receiver.ack("PUBREC", it.id)
    expect(receiver.read().kind, "PUBREL", "the answer to PUBREC")
    receiver.cut()
    receiver = durable(world, version, manual=True)
    again = receiver.read()
    expect((again.kind, again.id), ("PUBREL", it.id), "what is resent")
    receiver.ack("PUBCOMP", it.id)
    receiver.disconnect()
    durable(world, version).silent()


@both("messages for a session whose client is away wait for it, QoS 1 and 2")
def _(world, version):
    for leave in ("disconnect", "cut"):
        receiver = durable(world, version, leave)
        expect(receiver.connack.session_present, False, "session present of the first")
        receiver.subscribe((f"{world.topic}/{leave}/#", 2))
        getattr(receiver, leave)()
        sender = packets(world, version)
        for number in range(20):
            sender.publish(f"{world.topic}/{leave}/{number}", str(number).encode(), 1 + number % 2)
        receiver = durable(world, version, leave)
        expect(receiver.connack.session_present, True, "session present of the second")
        waited = receiver.receive_all(20)
        expect(payloads(waited), [str(number).encode() for number in range(20)])
        expect([it.qos for it in waited], [1, 2] * 10, "the QoS")


@both("a clean start ends the session: no session present, no subscription, no message, and none later either")
def _(world, version):
    receiver = durable(world, version)
    receiver.subscribe((world.topic, 1))
    receiver.disconnect()
    sender = packets(world, version)
    sender.publish(world.topic, b"lost", 1)
    receiver = durable(world, version, clean=True, expiry=0)
    expect(receiver.connack.session_present, False, "session present after a clean start")
    sender.publish(world.topic, b"not subscribed", 1)
    receiver.silent()
    receiver.disconnect()
    receiver = durable(world, version)
    expect(receiver.connack.session_present, False, "session present after a session that was not kept")
    receiver.silent()


@both("a second connection with the client identifier takes over, its session goes on")
def _(world, version):
    first = durable(world, version, manual=True)
    first.subscribe((world.topic, 1))
    sender = packets(world, version)
    sender.publish(world.topic, b"before", 1)
    before = first.receive()
    second = durable(world, version)
    expect(first.end_of(), 0x8E if version == 5 else None, "how the first was told")
    expect(second.connack.session_present, True, "session present")
    again = second.receive()
    expect((again.id, again.payload, again.dup), (before.id, b"before", True))
    sender.publish(world.topic, b"after", 1)
    expect(second.receive().payload, b"after")


@both("a client without an identifier is given one, or refused where it wants a session")
def _(world, version):
    it = packets(world, version, client_id="")
    it.subscribe((world.topic, 0))
    it.publish(world.topic, b"x")
    expect(it.receive().payload, b"x")
    if version == 5:
        assert it.connack.properties["assigned_client_identifier"], "no identifier assigned"
        return
    refused = world.keep(Packets(world.port, 4))
    expect(refused.connect("", clean=False).reason, 2, "the return code")
    refused.end_of()


@both("a will is published when the connection is cut or times out, and not after DISCONNECT")
def _(world, version):
    listener = packets(world, version)
    listener.subscribe((f"{world.topic}/#", 2))
    for qos, end in enumerate(("disconnect", "cut", "silence")):
        will = {"topic": f"{world.topic}/{end}", "payload": end.encode(), "qos": qos}
        it = packets(world, version, will=will, keepalive=1 if end == "silence" else 60)
        if end != "silence":
            getattr(it, end)()
    heard = sorted((it.topic, it.payload, it.qos) for it in listener.receive_all(2))
    expect(heard, [(f"{world.topic}/cut", b"cut", 1), (f"{world.topic}/silence", b"silence", 2)])
    listener.silent()


@both("the will of a connection that is taken over is published")
def _(world, version):
    listener = packets(world, version)
    listener.subscribe((f"{world.topic}/will", 1))
    packets(world, version, client_id=f"{world.name}-w", will={"topic": f"{world.topic}/will", "payload": b"taken"})
    packets(world, version, client_id=f"{world.name}-w")
    expect(listener.receive().payload, b"taken")


@both("a retained will is there for those who come later, an empty one deletes")
def _(world, version):
    for payload in (b"gone", b""):
        listener = packets(world, version)
        listener.subscribe((world.topic, 0))
        if not payload:
            listener.receive()
        packets(world, version, will={"topic": world.topic, "payload": payload, "retain": True}).cut()
        listener.receive()
        late = packets(world, version)
        late.subscribe((world.topic, 0))
        if payload:
            it = late.receive()
            expect((it.payload, it.retain), (payload, True))
        else:
            late.silent()


@both("retained messages come for exact filters and wildcards, with RETAIN, at the lower QoS; live ones without RETAIN")
def _(world, version):
    sender = packets(world, version)
    topics = [f"{world.topic}/a", f"{world.topic}/a/b", f"{world.topic}/c"]
    for qos, topic in enumerate(topics):
        sender.publish(topic, b"kept", qos, retain=True)
    for filter, wanted in [
        (f"{world.topic}/a", [0]), (f"{world.topic}/+", [0, 2]), (f"{world.topic}/#", [0, 1, 2]),
        (f"{world.topic}/+/b", [1]), (f"{world.topic}/a/#", [0, 1]), (f"{world.topic}/+/+/#", [1]),
    ]:
        receiver = packets(world, version)
        receiver.subscribe((filter, 1))
        heard = sorted((it.topic, it.qos, it.retain) for it in receiver.receive_all(len(wanted)))
        expect(heard, sorted((topics[qos], min(qos, 1), True) for qos in wanted), f"what {filter} gets")
        receiver.silent(0.1)
        # The same topic and QoS, so that the next filter finds what this one found.
        sender.publish(topics[wanted[0]], b"live", wanted[0], retain=True)
        expect(receiver.receive().retain, False, "RETAIN of a live message")


@both("an empty retained message deletes, is itself delivered, and is not kept")
def _(world, version):
    sender = packets(world, version)
    sender.publish(world.topic, b"kept", 1, retain=True)
    live = packets(world, version)
    live.subscribe((world.topic, 1))
    live.receive()
    sender.publish(world.topic, b"", 1, retain=True)
    expect(live.receive().payload, b"", "what the live subscriber hears")
    late = packets(world, version)
    late.subscribe((world.topic, 1))
    late.silent()


@both("the same subscription again gets the retained message again and replaces the first one")
def _(world, version):
    receiver = packets(world, version)
    receiver.publish(world.topic, b"kept", 1, retain=True)
    for qos in (0, 1, 2):
        expect(receiver.subscribe((world.topic, qos)), [qos])
        it = receiver.receive()
        expect((it.payload, it.qos, it.retain), (b"kept", min(qos, 1), True))
    receiver.publish(world.topic, b"live", 2)
    expect(receiver.receive().qos, 2, "the QoS of the last subscription")
    receiver.silent()


@both("overlapping subscriptions bring one copy, at the highest QoS")
def _(world, version):
    receiver = packets(world, version)
    receiver.subscribe((f"{world.topic}/#", 2), (f"{world.topic}/+", 1), (f"{world.topic}/a", 0))
    packets(world, version).publish(f"{world.topic}/a", b"x", 2)
    expect(receiver.receive().qos, 2)
    receiver.silent()


@both("UNSUBSCRIBE ends what it names and nothing else")
def _(world, version):
    receiver = packets(world, version)
    topics = [f"{world.topic}/{name}" for name in "abc"]
    receiver.subscribe(*((topic, 2) for topic in topics))
    codes = receiver.unsubscribe(topics[0], topics[2], f"{world.topic}/never")
    expect(codes, [0, 0, 0x11] if version == 5 else [], "the codes")
    sender = packets(world, version)
    for topic in topics:
        sender.publish(topic, b"x", 2)
    expect(receiver.receive().topic, topics[1])
    receiver.silent()


@both("a subscription that is refused has its code at its place, its neighbours are granted")
def _(world, version):
    world.with_broker("[mqtt]\nmax_subscriptions = 2\n")
    it = packets(world, version)
    topics = [f"{world.topic}/{name}" for name in "abc"]
    expect(it.subscribe(*((topic, 1) for topic in topics)), [1, 1, 0x97 if version == 5 else 0x80], "the codes")
    for topic in reversed(topics):
        it.publish(topic, b"x", 1)
    expect([each.topic for each in it.receive_all(2)], [topics[1], topics[0]])
    it.unsubscribe(topics[0])
    expect(it.subscribe((topics[2], 0)), [0], "the code once there is room")


@both("a malformed filter ends the connection")
def _(world, version):
    for bad in ("a/#/b", "a#", "a/b+", "", "#/a"):
        it = packets(world, version)
        it.send_subscribe((world.topic, 1), (bad, 1))
        expect(it.end_of(), 0x81 if version == 5 else None, f"what follows {bad!r}")


@both("topics that begin with $ are not matched by wildcards at the first level, and clients cannot write to $SYS")
def _(world, version):
    all_topics, direct = packets(world, version), packets(world, version)
    all_topics.subscribe(("#", 0), ("+/broker/uptime", 0))
    direct.subscribe(("$SYS/broker/uptime", 0))
    assert direct.receive().payload[:1].isdigit(), "uptime is not a number"
    sender = packets(world, version)
    try:
        code = sender.publish("$SYS/broker/uptime", b"lie", 1)
        assert version == 4 or code in (0x87, 0x90), f"the reason code is {code:#x}"
    except ConnectionClosed:
        assert version == 4, "MQTT 5 has reason codes for this"
    packets(world, version).publish(f"{world.topic}/end", b"end")
    while True:
        it = all_topics.receive()
        assert not it.topic.startswith("$"), f"a wildcard got {it.topic}"
        if it.topic == f"{world.topic}/end":
            break
    second = packets(world, version)
    second.subscribe(("$SYS/broker/uptime", 0))
    assert second.receive().payload != b"lie", "a client wrote to $SYS"


@both("silence longer than 1.5 keep-alives ends the connection, pings keep it")
def _(world, version):
    quiet = packets(world, version, keepalive=1)
    busy = packets(world, version, keepalive=1)
    for _round in range(4):
        busy.silent(0.6)
        busy.send(packet("PINGREQ"))
        expect(busy.read().kind, "PINGRESP")
    expect(quiet.end_of(3), 0x8D if version == 5 else None, "how the quiet one was told")


@both("packets may be split and joined over WebSocket messages as one likes")
def _(world, version):
    it = packets(world, version)
    it.subscribe((world.topic, 1))
    properties = b"\0" if version == 5 else b""
    one = packet("PUBLISH", data(world.topic) + b"\0\x09" + properties + b"payload", 2)
    stream = one + packet("PINGREQ") + one.replace(b"\0\x09", b"\0\x0a")
    for at in range(len(stream)):
        it.send(stream[at : at + 1])
    it.send(stream)
    heard = []
    while len(heard) < 10:
        heard.append(it.read())
    expect(sum(each.kind == "PUBACK" for each in heard), 4, "PUBACKs")
    expect(sum(each.kind == "PINGRESP" for each in heard), 2, "PINGRESPs")
    expect([each.payload for each in heard if each.kind == "PUBLISH"], [b"payload"] * 4)


@both("malformed and misplaced packets end the connection")
def _(world, version):
    properties = b"\0" if version == 5 else b""
    for what, bad, reason in [
        ("a second CONNECT", packet("CONNECT", data("MQTT") + bytes([version, 2, 0, 9]) + properties + data("a")), 0x82),
        ("PUBLISH with QoS 3", packet("PUBLISH", data("a") + b"\0\1" + properties, 6), 0x81),
        ("PUBLISH to a wildcard", packet("PUBLISH", data("a/#") + properties), 0x90),
        ("PUBLISH with identifier 0", packet("PUBLISH", data("a") + b"\0\0" + properties, 2), 0x82),
        ("SUBSCRIBE without a filter", packet("SUBSCRIBE", b"\0\1" + properties, 2), 0x82),
        ("SUBSCRIBE with reserved flags 0", packet("SUBSCRIBE", b"\0\1" + properties + data("a") + b"\0"), 0x81),
        ("PUBREL with reserved flags 0", packet("PUBREL", b"\0\1"), 0x81),
        ("CONNACK from a client", packet("CONNACK", b"\0\0" + properties), 0x82),
        ("a topic that is not UTF-8", packet("PUBLISH", data(b"\xff\xfe") + properties), 0x81),
        ("a remaining length of 5 bytes", b"\x30\xff\xff\xff\xff\x01", 0x81),
        ("packet type 0", b"\0\0", 0x81),
    ]:
        it = packets(world, version)
        it.send(bad)
        ended = it.end_of()
        expect(ended, reason if version == 5 else None, f"what follows {what}")


@both("a packet before CONNECT, and an unknown protocol name or version, are refused")
def _(world, version):
    early = world.keep(Packets(world.port, version))
    early.send(packet("PINGREQ"))
    expect(early.end_of(), None, "the answer to PINGREQ before CONNECT")
    for name, number in [("MQTT", 6), ("MQTX", version)]:
        # A server that does not know the version answers in the words of its own latest.
        it = world.keep(Packets(world.port, 5))
        it.send(packet("CONNECT", data(name) + bytes([number, 2, 0, 9]) + b"\0" * (version == 5) + data("a")))
        try:
            answer = it.read()
            assert answer.kind == "CONNACK" and answer.reason in (0x84, 1), answer
            it.end_of()
        except ConnectionClosed:
            pass
