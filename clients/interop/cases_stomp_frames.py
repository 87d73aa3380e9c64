"""Bodies, headers and the edges of frames, as STOMP libraries that nobody here wrote make and read them."""

import os

from stomp_cases import SINCE_1_1, each, expect_bodies
from world import expect

TEXT = "grüße, 世界 🌊, Älä sinä yhtään and السابق"
BINARY = bytes(range(256)) * 4
LARGE = 512 * 1024

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
