"""MQTT 5 packet by packet: what only version 5 has, properties, options, limits, flow control."""

import time

from cases_packets import FOR_LONG, durable, packets, payloads
from mqtt_packets import Packets, data, packet
from websockets.exceptions import ConnectionClosed
from world import case, expect

NO_LOCAL, AS_PUBLISHED, IF_NEW, NO_RETAINED = 4, 8, 1 << 4, 2 << 4


def five(sentence):
    return case(f"packets, MQTT 5: {sentence}")


@five("all properties of a publication arrive as sent, user properties in order and with duplicates")
def _(world):
    receiver = packets(world)
    receiver.subscribe((world.topic, 2))
    sent = {
        "payload_format_indicator": 1, "content_type": "text/plain", "response_topic": f"{world.topic}/answer",
        "correlation_data": bytes(range(256)), "user_property": [("b", "1"), ("a", "2"), ("b", "1"), ("b", ""), ("", "x")],
    }
    sender = packets(world)
    for qos in range(3):
        sender.publish(world.topic, "grüße".encode(), qos, **sent)
        expect(receiver.receive().properties, sent, f"the properties at QoS {qos}")
    sender.publish(world.topic, b"bare", 1)
    expect(receiver.receive().properties, {}, "the properties of a bare publication")


@five("the expiry interval counts down while a message waits, and an expired one does not come, retained or queued")
def _(world):
    receiver = durable(world, 5)
    receiver.subscribe((f"{world.topic}/queued/#", 1))
    receiver.disconnect()
    sender = packets(world)
    for kind, retain in (("queued", False), ("kept", True)):
        sender.publish(f"{world.topic}/{kind}/short", b"x", 1, retain, message_expiry_interval=1)
        sender.publish(f"{world.topic}/{kind}/long", b"x", 1, retain, message_expiry_interval=60)
        sender.publish(f"{world.topic}/{kind}/ever", b"x", 1, retain)
    time.sleep(2.1)
    waited = durable(world, 5).receive_all(2)
    late = packets(world)
    late.subscribe((f"{world.topic}/kept/#", 1))
    for kind, heard in (("queued", waited), ("kept", late.receive_all(2))):
        left = {it.topic.rpartition("/")[2]: it.properties.get("message_expiry_interval") for it in heard}
        expect(sorted(left), ["ever", "long"], f"what is left of the {kind}")
        assert left["ever"] is None and 50 <= left["long"] <= 58, f"{kind}: {left}"
    late.silent()


@five("a session ends when its expiry has passed, DISCONNECT may shorten it, but not begin one from zero")
def _(world):
    short = durable(world, 5, "short", expiry=1)
    shortened = durable(world, 5, "shortened", expiry=FOR_LONG)
    kept = durable(world, 5, "kept", expiry=1)
    for it in (short, shortened, kept):
        it.subscribe((world.topic, 1))
    short.cut()
    shortened.disconnect(session_expiry_interval=0)
    kept.disconnect(session_expiry_interval=FOR_LONG)
    time.sleep(2.1)
    expect(durable(world, 5, "short").connack.session_present, False, "the session that lasted 1 s")
    expect(durable(world, 5, "shortened").connack.session_present, False, "the session that DISCONNECT ended")
    expect(durable(world, 5, "kept").connack.session_present, True, "the session that DISCONNECT prolonged")
    none = packets(world)
    none.send(packet("DISCONNECT", b"\0\5\x11\0\0\0\x09"))
    expect(none.end_of(), 0x82, "the answer to an expiry that CONNECT had as zero")


@five("CONNACK says what differs from the standard's defaults, and only those")
def _(world):
    world.with_broker("[mqtt]\nkeepalive_max = '30s'\nreceive_maximum = 7\ntopic_alias_maximum = 3\nsession_expiry_max = '1m'\n")
    said = packets(world, keepalive=60, properties={"session_expiry_interval": 3600}).connack.properties
    expect(said["server_keep_alive"], 30)
    expect(said["receive_maximum"], 7)
    expect(said["topic_alias_maximum"], 3)
    expect(said["session_expiry_interval"], 60)
    expect(said["maximum_packet_size"], 1 << 20)
    for name in ("maximum_qos", "retain_available"):
        assert name not in said, f"{name} is the default and was sent"
    assert "server_keep_alive" not in packets(world, keepalive=20).connack.properties, "20 s were changed"


@five("a server that grants QoS 1 and no retained messages says so and keeps to it")
def _(world):
    world.with_broker("[mqtt]\nmax_qos = 1\nretain = false\n")
    it = packets(world)
    expect((it.connack.properties["maximum_qos"], it.connack.properties["retain_available"]), (1, 0))
    expect(it.subscribe((world.topic, 2)), [1], "the granted QoS")
    it.send_publish(world.topic, b"x", 2)
    expect(it.end_of(), 0x9B, "the answer to QoS 2")
    it = packets(world)
    it.send_publish(world.topic, b"x", 1, retain=True)
    expect(it.end_of(), 0x9A, "the answer to a retained message")
    it = world.keep(Packets(world.port))
    expect(it.connect("w", will={"topic": "w", "payload": b"", "qos": 2}).reason, 0x9B, "the answer to a will with QoS 2")


@five("no more deliveries are unacknowledged than the client's Receive Maximum, and QoS 0 is not held up")
def _(world):
    for maximum in (1, 2):
        receiver = packets(world, manual=True, properties={"receive_maximum": maximum})
        topic = f"{world.topic}/{maximum}"
        receiver.subscribe((f"{topic}/#", 2))
        sender = packets(world)
        for number in range(6):
            sender.publish(f"{topic}/{number}", str(number).encode(), 1 + number % 2)
        sender.publish(f"{topic}/zero", b"zero", 0)
        held, zero, order = [], False, []
        for _message in range(7):
            it = receiver.receive()
            if it.qos == 0:
                zero = True
                continue
            held.append(it)
            order.append(it.payload)
            if len(held) < maximum or len(order) + maximum > 6 + maximum:
                continue
            if not zero:
                it = receiver.receive()
                zero = it.qos == 0
                assert zero, f"{it} is one more than Receive Maximum {maximum}"
            receiver.silent(0.2)
            settle(receiver, held.pop(0))
            if len(order) == 6:
                break
        expect(order, [str(number).encode() for number in range(6)], "the order")


def settle(receiver, it):
    if it.qos == 1:
        return receiver.ack("PUBACK", it.id)
    receiver.ack("PUBREC", it.id)
    expect(receiver.read_answer("PUBREL", it.id).reason, 0)
    receiver.ack("PUBCOMP", it.id)


@five("PUBREC with an error frees its place as PUBACK does, and the message does not come again")
def _(world):
    receiver = durable(world, 5, manual=True, properties={"receive_maximum": 1})
    receiver.subscribe((world.topic, 2))
    sender = packets(world)
    for payload in (b"refused", b"next"):
        sender.publish(world.topic, payload, 2)
    receiver.ack("PUBREC", receiver.receive().id, 0x83)
    it = receiver.receive()
    expect(it.payload, b"next")
    receiver.cut()
    again = durable(world, 5, manual=True)
    expect((again.receive().payload), b"next")
    again.silent()


@five("a client that exceeds the server's Receive Maximum is told 0x93, one that keeps to it is not")
def _(world):
    world.with_broker("[mqtt]\nkeepalive_max = '30s'\nreceive_maximum = 7\ntopic_alias_maximum = 3\nsession_expiry_max = '1m'\n")
    it = packets(world)
    for _round in range(3):
        ids = [it.send_publish(world.topic, b"x", 2) for _ in range(7)]
        for id in ids:
            it.read_answer("PUBREC", id)
            it.ack("PUBREL", id)
        for id in ids:
            it.read_answer("PUBCOMP", id)
    for _number in range(8):
        it.send_publish(world.topic, b"x", 2)
    expect(it.end_of(), 0x93)


@five("a client's topic aliases are resolved, may be redefined, and end with the connection")
def _(world):
    receiver = packets(world)
    receiver.subscribe((f"{world.topic}/#", 1))
    sender = packets(world)
    for topic, qos, wanted in (("a", 0, "a"), ("", 1, "a"), ("b", 0, "b"), ("", 0, "b"), ("", 2, "b")):
        sender.publish(f"{world.topic}/{topic}" if topic else "", b"x", qos, topic_alias=16)
        it = receiver.receive()
        expect((it.topic, it.properties.get("topic_alias")), (f"{world.topic}/{wanted}", None))
    for alias, reason in ((17, 0x94), (0, 0x94)):
        bad = packets(world)
        bad.send_publish(world.topic, b"x", topic_alias=alias)
        expect(bad.end_of(), reason, f"the answer to alias {alias}")
    unknown = packets(world)
    unknown.send_publish("", b"x", topic_alias=16)
    assert unknown.end_of() in (0x82, 0x94), "an alias nobody defined"


@five("the server uses aliases for a client that takes them, at each QoS, no more than it takes, and none otherwise")
def _(world):
    plain = packets(world)
    plain.subscribe((f"{world.topic}/#", 2))
    taker = packets(world, properties={"topic_alias_maximum": 2})
    taker.subscribe((f"{world.topic}/#", 2))
    sender = packets(world)
    known, used = {}, 0
    for qos in range(3):
        for name in "abc" * 3:
            sender.publish(f"{world.topic}/{name}", name.encode(), qos)
            it = plain.receive()
            expect((it.topic, it.properties), (f"{world.topic}/{name}", {}), "what a client without aliases gets")
            it = taker.receive()
            alias = it.properties.get("topic_alias")
            if alias is not None:
                assert 1 <= alias <= 2, f"alias {alias} of 2"
                used += not it.topic
                known[alias] = it.topic or known[alias]
            expect(known[alias] if alias else it.topic, f"{world.topic}/{name}", "the topic")
    assert used >= 9, f"only {used} of 27 deliveries had an alias instead of a topic"


@five("aliases of a connection are not used for what is sent again on the next")
def _(world):
    receiver = durable(world, 5, manual=True, properties={"topic_alias_maximum": 5})
    receiver.subscribe((world.topic, 1))
    sender = packets(world)
    for _number in range(3):
        sender.publish(world.topic, b"x", 1)
    receiver.receive_all(3)
    receiver.cut()
    again = durable(world, 5, manual=True).receive_all(3)
    expect([(it.topic, it.properties) for it in again], [(world.topic, {})] * 3)


@five("a publication larger than the client's Maximum Packet Size is not sent to it, others are, and the session goes on")
def _(world):
    small = packets(world, properties={"maximum_packet_size": 100})
    small.subscribe((world.topic, 1))
    large = packets(world)
    large.subscribe((world.topic, 1))
    sender = packets(world)
    for payload in (b"a", b"x" * 100, b"b"):
        sender.publish(world.topic, payload, 1)
    expect(payloads(large.receive_all(3)), [b"a", b"x" * 100, b"b"])
    expect(payloads(small.receive_all(2)), [b"a", b"b"])
    small.silent()


@five("a packet larger than the server's Maximum Packet Size gets 0x95, one of that size is taken")
def _(world):
    world.with_broker('[websocket]\nmax_message_size = "16 KiB"\nmax_message_size_preauth = "16 KiB"\n[stomp]\nmax_body = "16 KiB"\n')
    it = packets(world)
    expect(it.connack.properties["maximum_packet_size"], 16384)
    head = 1 + 2 + 2 + len(world.topic) + 2 + 1
    expect(it.publish(world.topic, b"x" * (16384 - head), 1), 0x10, "the reason code: nobody subscribed")
    # Two WebSocket messages, so that it is MQTT's limit that is exceeded.
    body = data(world.topic) + b"\0\7\0" + b"x" * (16385 - head)
    whole = packet("PUBLISH", body, 2)
    try:
        it.send(whole[:9000])
        it.send(whole[9000:])
    except ConnectionClosed:
        pass
    expect(it.end_of(), 0x95)


@five("retain handling: 0 always, 1 only for a new subscription, 2 never")
def _(world):
    sender = packets(world)
    sender.publish(world.topic, b"kept", 1, retain=True)
    for handling, first, second in ((0, True, True), (IF_NEW, True, False), (NO_RETAINED, False, False)):
        receiver = packets(world)
        for wanted in (first, second):
            receiver.subscribe((world.topic, 1 | handling))
            if wanted:
                expect(receiver.receive().retain, True)
            receiver.silent(0.2)


@five("retain as published keeps RETAIN on live messages, and without it RETAIN is cleared")
def _(world):
    keeps, clears = packets(world), packets(world)
    keeps.subscribe((world.topic, 1 | AS_PUBLISHED))
    clears.subscribe((world.topic, 1))
    sender = packets(world)
    for qos in range(2):
        for retain in (True, False):
            sender.publish(world.topic, b"x", qos, retain)
            expect(keeps.receive().retain, retain, "as published")
            expect(clears.receive().retain, False, "as always")


@five("no local: one's own messages do not come, others' do; with a shared subscription it is a protocol error")
def _(world):
    it, other = packets(world), packets(world)
    it.subscribe((world.topic, 1 | NO_LOCAL))
    other.subscribe((world.topic, 1))
    it.publish(world.topic, b"own", 1)
    expect(other.receive().payload, b"own")
    other.publish(world.topic, b"other's", 1)
    expect(it.receive().payload, b"other's")
    it.silent(0.1)
    it.send_subscribe((f"$share/g/{world.topic}", 1 | NO_LOCAL))
    expect(it.end_of(), 0x82)


@five("a copy carries the identifiers of all subscriptions that match, also when it waited or was retained")
def _(world):
    receiver = durable(world, 5)
    receiver.subscribe((f"{world.topic}/#", 1), subscription_identifier=1)
    receiver.subscribe((f"{world.topic}/+", 2), subscription_identifier=268_435_455)
    receiver.subscribe((f"{world.topic}/a", 0))
    sender = packets(world)

    def check(it, wanted):
        expect(sorted(it.properties.get("subscription_identifier", [])), wanted, f"the identifiers on {it.topic}")

    sender.publish(f"{world.topic}/a", b"x", 2)
    check(receiver.receive(), [1, 268_435_455])
    sender.publish(f"{world.topic}/a/b", b"x", 1)
    check(receiver.receive(), [1])
    receiver.silent(0.1)
    receiver.cut()
    sender.publish(f"{world.topic}/b", b"waited", 1)
    receiver = durable(world, 5)
    check(receiver.receive(), [1, 268_435_455])
    sender.publish(f"{world.topic}/r", b"kept", 0, retain=True)
    check(receiver.receive(), [1, 268_435_455])
    receiver.subscribe((f"{world.topic}/r", 0), subscription_identifier=7)
    check(receiver.receive(), [7])
    receiver.subscribe((f"{world.topic}/+", 0))
    expect(receiver.receive().properties.get("subscription_identifier"), None, "the identifier of one replaced without")


@five("identifier 0 and an identifier in a publication are protocol errors")
def _(world):
    it = packets(world)
    it.send_subscribe((world.topic, 0), subscription_identifier=0)
    expect(it.end_of(), 0x82)
    it = packets(world)
    it.send_publish(world.topic, b"x", subscription_identifier=[3])
    expect(it.end_of(), 0x82)


@five("request and response: response information for who asks, response topic and correlation data through")
def _(world):
    world.with_broker('[mqtt]\nresponse_information = "answers/"\n')
    said = packets(world, client_id=f"{world.name}-q", properties={"request_response_information": 1})
    information = said.connack.properties["response_information"]
    assert information.startswith("answers/") and f"{world.name}-q" in information, information
    assert "response_information" not in packets(world).connack.properties, "nobody asked"
    server = packets(world)
    server.subscribe((f"{world.topic}/ask", 1))
    said.subscribe((information, 1))
    said.publish(f"{world.topic}/ask", b"2+2", 1, response_topic=information, correlation_data=b"\0\1\xff")
    asked = server.receive().properties
    server.publish(asked["response_topic"], b"4", 1, correlation_data=asked["correlation_data"])
    answer = said.receive()
    expect((answer.payload, answer.properties), (b"4", {"correlation_data": b"\0\1\xff"}))


@five("reason codes: 0x10 for nobody there, 0x92 for unknown identifiers, reason strings only for who wants them")
def _(world):
    it = packets(world)
    expect(it.publish(world.topic, b"x", 1), 0x10, "PUBACK")
    id = it.send_publish(world.topic, b"x", 2)
    expect(it.read_answer("PUBREC", id).reason, 0x10, "PUBREC")
    it.ack("PUBREL", id)
    expect(it.read_answer("PUBCOMP", id).reason, 0, "PUBCOMP")
    it.ack("PUBREL", 999)
    answer = it.read()
    expect((answer.kind, answer.id, answer.reason), ("PUBCOMP", 999, 0x92))
    # Request Problem Information says nothing about CONNACK and DISCONNECT [MQTT-3.1.2-29].
    for wants in (1, 0):
        it = packets(world, properties={"request_problem_information": wants})
        answer = it.read_answer("PUBACK", it.send_publish("$SYS/broker/uptime", b"x", 1))
        assert answer.reason in (0x87, 0x90), answer
        expect("reason_string" in answer.properties, bool(wants), f"a reason string when it is {wants}")


@five("the will has its properties, its delay counts none of its expiry, and its order is kept")
def _(world):
    listener = packets(world)
    listener.subscribe((f"{world.topic}/#", 2))
    sent = {
        "payload_format_indicator": 1, "content_type": "text/plain", "response_topic": "answer",
        "correlation_data": b"\0\xff", "user_property": [("b", "1"), ("a", "2"), ("b", "1")], "message_expiry_interval": 60,
    }
    will = {"topic": f"{world.topic}/will", "payload": b"gone", "qos": 2, "properties": {**sent, "will_delay_interval": 1}}
    start = time.monotonic()
    durable(world, 5, will=will).cut()
    it = listener.receive()
    assert time.monotonic() - start > 0.9, "the delay was not kept"
    expect((it.payload, it.qos), (b"gone", 2))
    assert 58 <= it.properties.pop("message_expiry_interval") <= 60, "the expiry counts from the publication"
    del sent["message_expiry_interval"]
    expect(it.properties, sent)


@five("a will's delay ends with the session, and a reconnect in time cancels the will")
def _(world):
    listener = packets(world)
    listener.subscribe((f"{world.topic}/#", 1))

    def leave(name, delay, expiry):
        will = {"topic": f"{world.topic}/{name}", "payload": b"x", "properties": {"will_delay_interval": delay}}
        durable(world, 5, name, expiry=expiry, will=will).cut()

    start = time.monotonic()
    leave("with its session", 60, 1)
    leave("cancelled", 1, 60)
    leave("clean start", 60, 60)
    expect(durable(world, 5, "cancelled").connack.session_present, True)
    expect(durable(world, 5, "clean start", clean=True).connack.session_present, False)
    expect(listener.receive().topic, f"{world.topic}/clean start", "the session that a clean start ended")
    expect(listener.receive().topic, f"{world.topic}/with its session")
    assert 0.9 < time.monotonic() - start < 10, "the will did not come with the end of its session"
    listener.silent(1.5)


@five("DISCONNECT with 0x04 publishes the will")
def _(world):
    listener = packets(world)
    listener.subscribe((world.topic, 1))
    packets(world, will={"topic": world.topic, "payload": b"asked for"}).disconnect(4)
    expect(listener.receive().payload, b"asked for")


@five("members of a shared subscription share; each message goes to one of each group, and to who subscribed plainly")
def _(world):
    members = [packets(world) for _ in range(3)]
    for number, member in enumerate(members):
        member.subscribe((f"$share/{'one' if number < 2 else 'two'}/{world.topic}/+", 1))
    plain = packets(world)
    plain.subscribe((f"{world.topic}/#", 1))
    sender = packets(world)
    sent = [str(number).encode() for number in range(40)]
    for payload in sent:
        sender.publish(f"{world.topic}/a", payload, 1)
    expect(payloads(plain.receive_all(40)), sent)
    expect(payloads(members[2].receive_all(40)), sent, "what the only member of its group gets")
    first, second = payloads(members[0].receive_all(20)), payloads(members[1].receive_all(20))
    expect(sorted(first + second), sorted(sent), "what the two share")
    for member in members:
        member.silent(0.1)


@five("what a member leaves without an acknowledgement goes to another member")
def _(world):
    leaver, stayer = packets(world, manual=True), packets(world)
    for member in (leaver, stayer):
        member.subscribe((f"$share/g/{world.topic}", 1))
    sender = packets(world)
    sent = [str(number).encode() for number in range(10)]
    for payload in sent:
        sender.publish(world.topic, payload, 1)
    leaver.receive_all(5)
    stayed = payloads(stayer.receive_all(5))
    leaver.cut()
    expect(sorted(stayed + payloads(stayer.receive_all(5))), sent)
    stayer.silent()


@five("a shared subscription gets no retained messages, and $share without a group or a filter is refused")
def _(world):
    it = packets(world)
    it.publish(world.topic, b"kept", 1, retain=True)
    expect(it.subscribe((f"$share/g/{world.topic}", 1)), [1])
    it.silent()
    it.publish(world.topic, b"live", 1)
    expect(it.receive().payload, b"live")
    expect(it.unsubscribe(f"$share/g/{world.topic}"), [0])
    it.publish(world.topic, b"nobody's", 1)
    it.silent(0.2)
    for bad in ("$share/g", "$share//a", "$share/g+/a", "$share/g/"):
        other = packets(world)
        id = other.send_subscribe((bad, 1))
        answer = other.read()
        if answer.kind == "SUBACK":
            expect((answer.id, answer.codes), (id, [0x8F]), bad)
        else:
            assert (answer.kind, answer.reason) in (("DISCONNECT", 0x81), ("DISCONNECT", 0x82)), f"{bad}: {answer}"


@five("a payload that is announced as UTF-8 and is not gets 0x99")
def _(world):
    it = packets(world)
    it.subscribe((world.topic, 1))
    other = packets(world)
    id = other.send_publish(world.topic, b"\xff\xfe", 1, payload_format_indicator=1)
    answer = other.read()
    expect((answer.kind, answer.id, answer.reason), ("PUBACK", id, 0x99))
    other.send_publish(world.topic, b"\xff\xfe", 0, payload_format_indicator=1)
    expect(other.end_of(), 0x99)
    it.silent()
