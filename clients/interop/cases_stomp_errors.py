"""What STOMP libraries that nobody here wrote are told when something is wrong: ERROR, then the close."""

from stomp_cases import SINCE_1_1, each, expect_bodies
from world import expect

OK = "SEND\ndestination:{0}\nreceipt:r-7\n"


def _is_told(using, do, receipt, about):
    """ERROR with `message` about it, `receipt-id` and a body, then the close; a bystander notices nothing."""
    bystander, client = using.open(), using.open()
    bystander.subscribe(f"{using.topic}/bystander")
    do(client)
    headers, body = client.wait_error()
    assert about in headers["message"], f"the message {headers['message']!r} says nothing of {about!r}"
    expect(headers.get("receipt-id"), receipt, "receipt-id")
    assert body.strip(), "the body explains nothing"
    client.wait_closed()
    bystander.send(f"{using.topic}/bystander", b"unharmed")
    expect_bodies(bystander, [b"unharmed"])


@each("SEND to a destination that is none gets ERROR with its receipt-id, and the close")
def _(using):
    _is_told(using, lambda it: it.begin_send("/exchange/amq.topic/x", b"x", {"receipt": "r-7"}), "r-7", "destination")


@each("SEND to a wildcard gets ERROR with its receipt-id, and the close")
def _(using):
    _is_told(using, lambda it: it.begin_send(f"{using.topic}/#", b"x", {"receipt": "r-7"}), "r-7", "destination")


@each("SUBSCRIBE with an id that is in use gets ERROR with its receipt-id, and the close")
def _(using):
    def twice(client):
        client.subscribe(using.topic, headers={"id": "same"})
        client.begin_subscribe(using.topic, {"id": "same", "ack": "auto", "receipt": "r-7"})

    _is_told(using, twice, "r-7", "id")


@each("SUBSCRIBE with an ack mode that is none gets ERROR with its receipt-id, and the close")
def _(using):
    def subscribe(client):
        client.begin_subscribe(using.topic, {"id": "s", "ack": "sometimes", "receipt": "r-7"})

    _is_told(using, subscribe, "r-7", "ack")


@each("client-individual is no ack mode of 1.0", versions=("1.0",))
def _(using):
    def subscribe(client):
        client.begin_subscribe(using.topic, {"id": "s", "ack": "client-individual", "receipt": "r-7"})

    _is_told(using, subscribe, "r-7", "ack")


@each("SUBSCRIBE with a selector that is none gets ERROR with its receipt-id, and the close")
def _(using):
    def subscribe(client):
        client.begin_subscribe(using.topic, {"id": "s", "ack": "auto", "selector": "price >", "receipt": "r-7"})

    _is_told(using, subscribe, "r-7", "selector")


@each("UNSUBSCRIBE of an unknown id gets ERROR with its receipt-id, and the close")
def _(using):
    _is_told(using, lambda it: it.begin_unsubscribe("unknown", {"receipt": "r-7"}), "r-7", "subscription")


@each("ACK of a message that nobody sent gets ERROR with its receipt-id, and the close")
def _(using):
    def acknowledge(client):
        client.subscribe(using.topic, ack="client", headers={"id": "s"})
        client.ack_id("never", "s", "r-7")

    _is_told(using, acknowledge, "r-7", "message")


@each("ACK with ack:auto gets ERROR with its receipt-id, and the close", versions=SINCE_1_1)
def _(using):
    def acknowledge(client):
        client.subscribe(using.topic, headers={"id": "s"})
        client.send(using.topic, b"x")
        client.ack_id(client.receive().info["headers"]["message-id"], "s", "r-7")

    _is_told(using, acknowledge, "r-7", "ack")


@each("COMMIT and ABORT of a transaction that is not open get ERROR, and the close")
def _(using):
    _is_told(using, lambda it: it.commit("unknown"), None, "transaction")
    _is_told(using, lambda it: it.abort("unknown"), None, "transaction")


@each("SEND into a transaction that is not open gets ERROR with its receipt-id, and the close")
def _(using):
    def send(client):
        client.begin_send(using.topic, b"x", {"transaction": "unknown", "receipt": "r-7"})

    _is_told(using, send, "r-7", "transaction")


@each("BEGIN of a transaction that is open gets ERROR, and the close")
def _(using):
    def begin(client):
        client.begin("same")
        client.begin("same")

    _is_told(using, begin, None, "transaction")


@each("NACK is no frame of 1.0: it gets ERROR, and the close", versions=("1.0",), libraries=["stompjs", "webstomp-client"])
def _(using):
    def refuse(client):
        client.subscribe(using.topic, ack="client")
        client.send(using.topic, b"x")
        client.begin_nack(client.receive(), {"receipt": "r-7"})

    _is_told(using, refuse, "r-7", "command")


@each("a second CONNECT gets ERROR, and the close")
def _(using):
    _is_told(using, lambda it: it.raw("CONNECT\naccept-version:1.2\nhost:h\n\n\0"), None, "connected")


@each("a frame of no known command gets ERROR, and the close")
def _(using):
    _is_told(using, lambda it: it.raw("FLY\nto:moon\n\n\0"), None, "command")


@each("a header without a colon gets ERROR with the receipt-id, and the close")
def _(using):
    _is_told(using, lambda it: it.raw(OK.format(using.topic) + "no colon here\n\nx\0"), "r-7", "colon")


@each("an escape that is not defined gets ERROR with the receipt-id, and the close", versions=SINCE_1_1)
def _(using):
    _is_told(using, lambda it: it.raw(OK.format(using.topic) + "x:a\\tb\n\nx\0"), "r-7", "escape")


@each("the escape of a carriage return is not defined in 1.1", versions=("1.1",))
def _(using):
    _is_told(using, lambda it: it.raw(OK.format(using.topic) + "x:a\\rb\n\nx\0"), "r-7", "escape")


@each("a content-length that is too short, or no number, gets ERROR with the receipt-id, and the close")
def _(using):
    for length in ("2", "-1", "many"):
        _is_told(using, lambda it: it.raw(OK.format(using.topic) + f"content-length:{length}\n\nabc\0"), "r-7", "")


@each("a body where none is allowed gets ERROR with the receipt-id, and the close", versions=SINCE_1_1)
def _(using):
    _is_told(using, lambda it: it.raw("BEGIN\ntransaction:t\nreceipt:r-7\n\nbody\0"), "r-7", "body")


@each("SEND without a destination gets ERROR with its receipt-id, and the close")
def _(using):
    _is_told(using, lambda it: it.raw("SEND\nreceipt:r-7\n\nx\0"), "r-7", "destination")


@each("a body above the limit gets ERROR, and the close")
def _(using):
    using.world.with_broker('[stomp]\nmax_body = "64 KiB"\n')
    _is_told(using, lambda it: it.begin_send(using.topic, b"x" * 70_000, {"receipt": "r-7"}), "r-7", "65536")


@each("more headers than the limit get ERROR, and the close")
def _(using):
    headers = {f"h{number}": "x" for number in range(200)}
    _is_told(using, lambda it: it.begin_send(using.topic, b"x", headers), None, "100")


@each("more transactions or actions than the limits get ERROR that names the limit, and the close")
def _(using):
    using.world.with_broker("[stomp]\nmax_transactions = 3\nmax_transaction_actions = 5\n")

    def begin(client):
        for number in range(4):
            client.begin(f"t{number}")

    def fill(client):
        client.begin("t")
        for number in range(6):
            client.begin_send(using.topic, b"x", {"transaction": "t", "receipt": f"r-{number}"})

    _is_told(using, begin, None, "max_transactions = 3")
    _is_told(using, fill, "r-5", "max_transaction_actions = 5")


@each("after ERROR nothing that was sent behind it counts")
def _(using):
    listener, client = using.open(), using.open()
    listener.subscribe(using.topic)
    frame = "SEND\ndestination:{}\n\n{}\0"
    client.raw(frame.format(using.topic, "before") + frame.format("/exchange/x", "bad") + frame.format(using.topic, "behind"))
    client.wait_error()
    client.wait_closed()
    expect_bodies(listener, [b"before"])
    listener.send(using.topic, b"next")
    expect_bodies(listener, [b"next"])
