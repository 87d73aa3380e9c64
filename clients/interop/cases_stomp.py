"""STOMP over WebSocket as libraries that nobody here wrote speak it: connecting, receipts, headers, bodies, errors.

What they ask of a broker is what the test suites of stompjs and stomp.py ask of theirs, and more.
"""

import os
import time

from relay import Relay
from stomp_cases import SINCE_1_1, each, expect_bodies, heard, nothing_but
from stomp_libraries import Refused
from world import expect

TEXT = "grüße, 世界 🌊, Älä sinä yhtään and السابق"
BINARY = bytes(range(256)) * 4
LARGE = 512 * 1024

# ---- connecting ---------------------------------------------------------------------------------------------------


@each("CONNECTED says the version, the server, a session of its own and, since 1.1, heart-beats")
def _(using):
    one, other = using.open(), using.open()
    said = one.connected
    expect(said["version"], using.version, "the version")
    assert said["server"].startswith("tidegate/"), said
    assert said["session"] and said["session"] != other.connected["session"], "the session is not its own"
    expect("heart-beat" in said, using.version != "1.0", "whether there is a heart-beat")


@each("DISCONNECT gets its RECEIPT before the close, even when the client closes at once")
def _(using):
    client = using.open()
    client.wait_receipt(client.leave())


@each("DISCONNECT is read after everything that was sent before it")
def _(using):
    listener, client = using.open(), using.open()
    listener.subscribe(using.topic)
    wanted = [str(number).encode() for number in range(50)]
    for body in wanted:
        client.begin_send(using.topic, body, {})
    client.leave()
    expect_bodies(listener, wanted)


@each("`host`, and `client-id` twice at once, are taken")
def _(using):
    for _client in range(2):
        client = using.open(headers={"host": "elsewhere", "client-id": using.world.name})
        client.send(using.topic, b"x")


@each("`login` comes back as user-name; a passcode that nobody checks does no harm")
def _(using):
    client = using.open(headers={"login": "ann", "passcode": "secret"})
    expect(client.connected.get("user-name"), "ann", "user-name")
    assert "passcode" not in client.connected, client.connected
    assert "user-name" not in using.open().connected, "a user-name without a login"


@each("who may not connect gets ERROR instead of CONNECTED, with and without `login`")
def _(using):
    using.world.with_broker('[auth]\nanonymous = "never"\n')
    for headers in ({}, {"login": "ann", "passcode": "bad-passcode"}):
        try:
            using.open(headers=headers)
        except Refused as refused:
            assert refused.headers["message"] and refused.body.strip(), refused.headers
        else:
            raise AssertionError(f"it connected with {headers}")


@each("of several offered tokens and versions the highest is taken", libraries=["stompjs", "webstomp-client"], versions=("1.2",))
def _(using):
    client = using.open(tokens=["v10.stomp", "v11.stomp", "v12.stomp"], versions=["1.0", "1.1", "1.2"])
    expect((client.token, client.connected["version"]), ("v12.stomp", "1.2"))


@each("a version above the token's gets ERROR with the versions that there are", versions=SINCE_1_1, needs=["other versions"])
def _(using):
    try:
        using.open(tokens=["v10.stomp"])
    except Refused as refused:
        expect(refused.headers.get("version"), "1.0", "the versions")
        assert "version" in refused.headers["message"] and "1.0" in refused.body, refused.body
    else:
        raise AssertionError("it connected")


@each("a version that the operator has left out is refused")
def _(using):
    others = [version for version in ("1.0", "1.1", "1.2") if version != using.version]
    using.world.with_broker(f"[stomp]\nversions = {others}\n")
    try:
        using.open()
    except (ConnectionError, Refused):
        pass
    else:
        raise AssertionError("it connected")


# ---- heart-beats --------------------------------------------------------------------------------------------------


@each("heart-beats of both sides keep a quiet connection, at the longer of both intervals", versions=SINCE_1_1)
def _(using):
    using.world.with_broker('[stomp]\nheart_beat = ["1s", "1s"]\n')
    client = using.open(heartbeat=(500, 500))
    client.subscribe(using.topic)
    start = time.monotonic()
    for _beat in range(4):
        client.beats.get(timeout=15)
    # Twice what the broker waits for one of ours.
    took = time.monotonic() - start
    assert 2.5 <= took <= 12, f"four heart-beats of one second took {took:.1f} s"
    client.send(using.topic, b"still here")
    expect_bodies(client, [b"still here"])
    assert client.errors.empty() and client._closed.empty(), "the connection was lost"


@each("a broker that wants no heart-beats sends none, and nobody misses them", versions=SINCE_1_1)
def _(using):
    using.world.with_broker('[stomp]\nheart_beat = ["none", "none"]\n')
    client = using.open(heartbeat=(200, 200))
    expect(client.connected.get("heart-beat", "0,0"), "0,0")
    client.subscribe(using.topic)
    time.sleep(1.5)
    assert client.beats.empty(), "a heart-beat came"
    client.send(using.topic, b"still here")
    expect_bodies(client, [b"still here"])


@each("a client that promised heart-beats and falls silent gets ERROR after twice the interval", versions=SINCE_1_1)
def _(using):
    using.world.with_broker('[stomp]\nheart_beat = ["1s", "1s"]\n')
    relay = using.world.keep(Relay(using.world.port))
    client = using.open(via=relay, heartbeat=(1000, 1000))
    client.beats.get(timeout=15)
    start = time.monotonic()
    relay.be_deaf()
    headers, _body = client.wait_error()
    took = time.monotonic() - start
    assert "heart-beat" in headers["message"], headers
    assert 0.9 <= took <= 6, f"the broker was patient for {took:.1f} s"
    client.wait_closed()


# ---- receipts -----------------------------------------------------------------------------------------------------


@each("SUBSCRIBE, SEND, ACK, NACK, UNSUBSCRIBE get the RECEIPT they ask for, and none that nobody asked for")
def _(using):
    client = using.open()
    client.begin_subscribe(using.topic, {"id": "s", "ack": "client", "receipt": "of SUBSCRIBE"})
    for body in (b"1", b"2"):
        client.begin_send(using.topic, body, {"receipt": f"of SEND {body.decode()}"})
    first, second = heard(client, 2)
    client.begin_ack(first, {"receipt": "of ACK"})
    (client.begin_ack if using.version == "1.0" else client.begin_nack)(second, {"receipt": "of NACK"})
    client.begin_send(using.topic, b"3", {})
    client.begin_unsubscribe("s", {"receipt": "of UNSUBSCRIBE"})
    wanted = {"of SUBSCRIBE", "of SEND 1", "of SEND 2", "of ACK", "of NACK", "of UNSUBSCRIBE"}
    for name in wanted:
        client.wait_receipt(name)
    expect(set(client._receipts), wanted, "the receipts")


@each("a receipt of any characters comes back in RECEIPT", needs=["escapes"])
def _(using):
    client = using.open()
    name = "a:b ü" if using.version == "1.0" else "a:b \\ c\nd ü"
    client.begin_send(using.topic, b"x", {"receipt": name})
    client.wait_receipt(name)


@each("BEGIN, COMMIT and ABORT get the RECEIPT they ask for", needs=["receipts of transactions"])
def _(using):
    client = using.open()
    for end in ("commit", "abort"):
        client.begin(end, receipt=f"begin {end}")
        client.wait_receipt(f"begin {end}")
        client.send(using.topic, b"x", {"transaction": end})
        getattr(client, end)(end, receipt=end)
        client.wait_receipt(end)


@each("who sends on the RECEIPT of its SUBSCRIBE hears it")
def _(using):
    for number in range(20):
        client = using.open()
        client.subscribe(f"{using.topic}/{number}")
        client.send(f"{using.topic}/{number}", b"Is anybody out there?")
        expect_bodies(client, [b"Is anybody out there?"])


# ---- subscriptions ------------------------------------------------------------------------------------------------


@each("each subscription gets a MESSAGE of its own, and after UNSUBSCRIBE none")
def _(using):
    client, sender = using.open(), using.open()
    first, second = client.subscribe(using.topic), client.subscribe(using.topic)
    sender.send(using.topic, b"to both")
    both = heard(client, 2)
    expect(sorted(message.info["headers"]["subscription"] for message in both), sorted([first, second]))
    assert both[0].info["headers"]["message-id"] != both[1].info["headers"]["message-id"], "one message-id for two"
    client.unsubscribe(first)
    sender.send(using.topic, b"to the second")
    expect(client.receive().info["headers"]["subscription"], second)
    client.unsubscribe(second)
    sender.send(using.topic, b"to nobody")
    client.subscribe(f"{using.topic}/other")
    nothing_but(client, b"next", lambda body: sender.send(f"{using.topic}/other", body))


@each("a subscription without an id goes by its destination", versions=("1.0",), libraries=["stomp.py"])
def _(using):
    client, sender = using.open(), using.open()
    client.subscribe_without_id(using.topic)
    sender.send(using.topic, b"x")
    assert "subscription" not in expect_bodies(client, [b"x"])[0].info["headers"], "a subscription that nobody named"
    client.unsubscribe_destination(using.topic)
    sender.send(using.topic, b"to nobody")
    client.subscribe_without_id(f"{using.topic}/other")
    nothing_but(client, b"next", lambda body: sender.send(f"{using.topic}/other", body))


@each("MESSAGE has an ack header in 1.2 alone, and only where ACK is expected")
def _(using):
    client = using.open()
    for mode in ("auto", "client"):
        client.subscribe(f"{using.topic}/{mode}", ack=mode)
        client.send(f"{using.topic}/{mode}", b"x")
        said = client.receive().info["headers"]
        expect("ack" in said, using.version == "1.2" and mode == "client", f"whether ack:{mode} has an ack header")
        expect(said["destination"], f"{using.topic}/{mode}")


@each("wildcards + and # hear what they cover, each with its destination")
def _(using):
    client = using.open()
    client.subscribe(f"{using.topic}/+/temp")
    client.subscribe(f"{using.topic}/3/#")
    for name in ("3/temp", "4/temp", "3/a/b", "4/hum"):
        client.send(f"{using.topic}/{name}", name.encode())
    came = sorted(message.topic.removeprefix(f"{using.topic}/") for message in heard(client, 4))
    expect(came, ["3/a/b", "3/temp", "3/temp", "4/temp"])
    nothing_but(client, b"marker", lambda body: client.send(f"{using.topic}/5/temp", body))


@each("no-local leaves out what the client sends itself")
def _(using):
    client, other = using.open(), using.open()
    client.subscribe(using.topic, headers={"no-local": "true"})
    client.send(using.topic, b"own")
    nothing_but(client, b"of another", lambda body: other.send(using.topic, body))


@each("retain:true is kept for the next subscriber, who is told; an empty one deletes it")
def _(using):
    sender, live = using.open(), using.open()
    live.subscribe(using.topic)
    sender.send(using.topic, b"kept", {"retain": "true"})
    assert "retained" not in live.receive().info["headers"], "a live message says retained"
    late = using.open()
    late.subscribe(using.topic)
    expect(expect_bodies(late, [b"kept"])[0].info["headers"].get("retained"), "true", "retained")
    sender.send(using.topic, b"", {"retain": "true"})
    expect_bodies(late, [b""])
    third = using.open()
    third.subscribe(using.topic)
    nothing_but(third, b"live", lambda body: sender.send(using.topic, body))


@each("expiration and expires are obeyed: what has expired is not kept, what has not says how long it has left")
def _(using):
    sender, late = using.open(), using.open()
    sender.send(f"{using.topic}/short", b"short", {"retain": "true", "expiration": "100"})
    sender.send(f"{using.topic}/past", b"past", {"retain": "true", "expires": "1000"})
    sender.send(f"{using.topic}/long", b"long", {"retain": "true", "expiration": "60000"})
    time.sleep(0.3)
    late.subscribe(f"{using.topic}/#")
    message = expect_bodies(late, [b"long"])[0]
    left = int(message.info["headers"]["expiration"])
    assert 40_000 < left < 60_000, f"{left} ms left of 60000"
    nothing_but(late, b"marker", lambda body: sender.send(using.topic, body))


# ---- bodies -------------------------------------------------------------------------------------------------------


@each("text, JSON and no body at all come as they were sent, with their content-type")
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    for kind, body in (("text/plain", TEXT), ("application/json", '{"text": "hello", "n": 1}'), ("text/plain", "")):
        client.send(using.topic, body.encode(), {"content-type": kind}, text=True)
        message = expect_bodies(client, [body.encode()])[0]
        expect(message.info["headers"]["content-type"], kind)
        expect(message.info.get("binary", False), False, "whether it came in a binary WebSocket message")
        expect(int(message.info["headers"]["content-length"]), len(body.encode()), "content-length")


@each("512 KiB of text come whole, in both directions")
def _(using):
    text = os.urandom(LARGE // 2).hex().encode()
    client = using.open()
    client.subscribe(using.topic)
    client.send(using.topic, text, text=True)
    assert client.receive().payload == text, "the large text came changed"


@each("a frame that is split over WebSocket messages is read whole", libraries=["stompjs"])
def _(using):
    text = os.urandom(LARGE // 2).hex().encode()
    client = using.open(more={"splitLargeFrames": True, "maxWebSocketChunkSize": 1000})
    client.subscribe(using.topic)
    client.send(using.topic, text, text=True)
    assert client.receive().payload == text, "the large text came changed"


@each("frames in binary WebSocket messages are read like those in text", libraries=["stompjs", "webstomp-client"])
def _(using):
    name = {"stompjs": "forceBinaryWSFrames", "webstomp-client": "binary"}[using.library]
    client = using.open(more={name: True})
    client.subscribe(using.topic)
    client.send(using.topic, TEXT.encode(), text=True)
    expect_bodies(client, [TEXT.encode()])


@each("with stomp.frames = binary everything comes in binary WebSocket messages, and is the same")
def _(using):
    using.world.with_broker('[stomp]\nframes = "binary"\n')
    client = using.open()
    client.subscribe(using.topic)
    client.send(using.topic, TEXT.encode(), text=True)
    # stomp.py does not show of what kind a WebSocket message was.
    expect(expect_bodies(client, [TEXT.encode()])[0].info.get("binary", True), True, "whether it was binary")


def _send_frame(using, name, end="\n"):
    lines = ["SEND", f"destination:{using.topic}", f"receipt:{name}", "", f"body of {name}\0"]
    return end.join(lines)


@each("frames that share a WebSocket message, with line feeds between them, are each read")
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    client.raw("\n" + _send_frame(using, "a") + _send_frame(using, "b") + "\n\n" + _send_frame(using, "c") + "\n")
    expect_bodies(client, [b"body of a", b"body of b", b"body of c"])
    for name in "abc":
        client.wait_receipt(name)


@each("a frame in WebSocket messages of one character each is read")
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    for character in _send_frame(using, "split"):
        client.raw(character)
    expect_bodies(client, [b"body of split"])


@each("lines may end in CR LF", versions=("1.2",))
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    client.raw(_send_frame(using, "a", "\r\n") + "\r\n" + _send_frame(using, "b", "\r\n"))
    expect_bodies(client, [b"body of a", b"body of b"])
    client.wait_receipt("b")


@each("without content-length a body ends at NUL", needs=["skip content-length"])
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    client.send(using.topic, TEXT.encode(), text=True, skipLength=True)
    expect_bodies(client, [TEXT.encode()])


@each("any bytes come as they were sent, NUL and what is not UTF-8 too, up to 512 KiB", needs=["binary"])
def _(using):
    client = using.open(binary=True) if using.library == "stomp.py" else using.open()
    client.subscribe(using.topic)
    for body in (b"\0", b"a\0b\0", BINARY, os.urandom(LARGE)):
        client.send(using.topic, body, {"content-type": "application/octet-stream"})
        message = client.receive()
        assert message.payload == body, f"{len(body)} bytes came as {len(message.payload)} others"
    # The last of them is no UTF-8, which a text message must be.
    expect(message.info.get("binary", True), True, "whether it came in a binary WebSocket message")


# ---- headers ------------------------------------------------------------------------------------------------------


@each("headers come with their colons, backslashes, newlines and carriage returns", versions=SINCE_1_1, needs=["escapes"])
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    special = {
        "special-1": "test with colon : test", "special-2": "test with backslash \\ test",
        "special-3": "test with newlines \n \n", "special-4": TEXT,
    }
    # stompjs undoes escapes one after the other, so that it takes an escaped backslash and an n for a newline.
    if using.can("escapes of escapes"):
        special |= {"special-5": "\\n is no newline, \\c is no colon"}
    if using.version == "1.2":
        special |= {"special-6": "test with carriage return \r", "special-7": "f:o:o\nbar\rbaz\\foo\nbar\rbaz\\"}
    client.send(using.topic, b"x", special)
    said = client.receive().info["headers"]
    expect({name: said.get(name) for name in special}, special, "the headers")


@each("in 1.0 nothing is escaped: a backslash is one", versions=("1.0",))
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    # stomp.py undoes escapes in 1.0 as well: what would be none is all that every library can tell.
    special = {"special-1": "test with colon : test", "special-2": "test with backslash \\ test"}
    client.send(using.topic, b"x", special)
    said = client.receive().info["headers"]
    expect({name: said.get(name) for name in special}, special, "the headers")


@each("of a header that is repeated the first counts", needs=["repeated headers"])
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    client.send(using.topic, b"x", {"content-type": ("text/first", "text/second")})
    expect(client.receive().info["headers"]["content-type"], "text/first")


@each("headers of one's own come back, and none can speak for the broker")
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    forged = {"unit": "celsius", "message-id": "forged", "subscription": "forged", "redelivered": "true"}
    client.send(using.topic, b"x", forged)
    said = client.receive().info["headers"]
    expect((said["unit"], said.get("redelivered")), ("celsius", None))
    assert "forged" not in (said["message-id"], said["subscription"]), said
