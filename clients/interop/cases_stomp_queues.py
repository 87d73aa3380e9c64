"""Queues, acknowledgements and transactions as STOMP libraries that nobody here wrote use them."""

import time

from stomp_cases import SINCE_1_1, each, expect_bodies, fill, nothing_but
from world import expect

# ---- queues -------------------------------------------------------------------------------------------------------


@each("a queue keeps what nobody consumes, in order, and gives it to the next consumer once")
def _(using):
    wanted = fill(using, using.queue, 20)
    client = using.open()
    client.subscribe(using.queue)
    for message in expect_bodies(client, wanted):
        expect((message.topic, "retained" in message.info["headers"]), (using.queue, False))
    client.leave()
    late = using.open()
    late.subscribe(using.queue)
    nothing_but(late, b"next", lambda body: using.open().send(using.queue, body))


@each("two consumers of a queue share its messages")
def _(using):
    clients = [using.open(), using.open()]
    for client in clients:
        client.subscribe(using.queue, ack="client", headers={"prefetch-count": "1"})
    wanted = fill(using, using.queue, 20)
    counts = [0, 0]
    for _turn in range(10):
        for number, client in enumerate(clients):
            message = client.receive()
            wanted.remove(message.payload)
            counts[number] += 1
            client.ack(message)
    expect((wanted, counts), ([], [10, 10]), "what is left, and who had how many")


@each("what goes to a queue is not heard by the topic of the same name below /topic/")
def _(using):
    listener, consumer = using.open(), using.open()
    listener.subscribe(using.topic)
    consumer.subscribe(using.queue)
    consumer.send(using.queue, b"job")
    expect_bodies(consumer, [b"job"])
    nothing_but(listener, b"live", lambda body: consumer.send(using.topic, body))


@each("prefetch-count bounds what a consumer has without having acknowledged it")
def _(using):
    client, other = using.open(), using.open()
    client.subscribe(using.queue, ack="client", headers={"prefetch-count": "2"})
    wanted = fill(using, using.queue, 5)
    first = expect_bodies(client, wanted[:2])
    # Whoever comes next gets what is left: nothing more is with the first.
    other.subscribe(using.queue, ack="client")
    rest = expect_bodies(other, wanted[2:])
    other.ack(rest[-1])
    client.ack(first[-1])
    nothing_but(client, b"next", lambda body: (other.unsubscribe("sub-1"), client.send(using.queue, body)))


@each("selectors choose by headers, on topics and queues")
def _(using):
    client, sender = using.open(), using.open()
    client.subscribe(using.topic, headers={"selector": "colour = 'red' AND price BETWEEN 1 AND 9"})
    for colour, price in (("red", 5), ("blue", 5), ("red", 50), ("red", 9)):
        sender.send(using.topic, f"{colour} {price}".encode(), {"colour": colour, "price": str(price)})
    expect_bodies(client, [b"red 5", b"red 9"])
    blue, red = using.open(), using.open()
    blue.subscribe(using.queue, headers={"selector": "colour = 'blue'"})
    red.subscribe(using.queue, headers={"selector": "colour LIKE 'r%'"})
    for colour in ("red", "blue", "red"):
        sender.send(using.queue, colour.encode(), {"colour": colour})
    expect_bodies(blue, [b"blue"])
    expect_bodies(red, [b"red", b"red"])


# ---- acknowledgements ---------------------------------------------------------------------------------------------


@each("with ack:auto what was sent is consumed: it does not come again after a drop")
def _(using):
    client = using.open()
    client.subscribe(using.queue)
    expect_bodies(client, fill(using, using.queue, 3))
    client.kill()
    late = using.open()
    late.subscribe(using.queue)
    nothing_but(late, b"next", lambda body: using.open().send(using.queue, body))


@each("with ack:client one ACK settles all before it, and after a drop the rest comes again")
def _(using):
    client = using.open()
    client.subscribe(using.queue, ack="client")
    wanted = fill(using, using.queue, 6)
    client.ack(expect_bodies(client, wanted)[3])
    client.kill()
    other = using.open()
    other.subscribe(using.queue, ack="client")
    other.ack(expect_bodies(other, wanted[4:])[-1])
    nothing_but(other, b"next", lambda body: other.send(using.queue, body))


@each("with ack:client-individual each ACK settles its own message, and after a drop the others come again", versions=SINCE_1_1)
def _(using):
    client = using.open()
    client.subscribe(using.queue, ack="client-individual")
    wanted = fill(using, using.queue, 6)
    messages = expect_bodies(client, wanted)
    for number in (5, 0, 3):
        client.ack(messages[number])
    client.kill()
    other = using.open()
    other.subscribe(using.queue, ack="client-individual")
    expect_bodies(other, [wanted[1], wanted[2], wanted[4]])


@each("what a consumer that is cut had not acknowledged goes to another, marked as redelivered")
def _(using):
    client, other = using.open(), using.open()
    client.subscribe(using.queue, ack="client")
    wanted = fill(using, using.queue, 2)
    for message in expect_bodies(client, wanted):
        expect(message.info["headers"].get("redelivered"), None, "redelivered, the first time")
    other.subscribe(using.queue, ack="client")
    client.kill()
    for message in expect_bodies(other, wanted):
        expect(message.info["headers"].get("redelivered"), "true", "redelivered")


@each("what a consumer had not acknowledged goes to another when it says DISCONNECT, and what it had does not")
def _(using):
    clients = [using.open(), using.open()]
    clients[0].subscribe(using.queue, ack="client")
    one, two = fill(using, using.queue, 2)
    messages = expect_bodies(clients[0], [one, two])
    clients[0].ack(messages[0])
    clients[1].subscribe(using.queue, ack="client")
    clients[0].leave()
    message = expect_bodies(clients[1], [two])[0]
    clients[1].ack(message)
    nothing_but(clients[1], b"next", lambda body: clients[1].send(using.queue, body))


@each("what a subscription had not acknowledged goes to another after UNSUBSCRIBE")
def _(using):
    client, other = using.open(), using.open()
    id = client.subscribe(using.queue, ack="client")
    wanted = fill(using, using.queue, 3)
    expect_bodies(client, wanted)
    other.subscribe(using.queue, ack="client")
    client.unsubscribe(id)
    expect_bodies(other, wanted)


@each("NACK gives a message of a queue to another consumer", versions=SINCE_1_1)
def _(using):
    clients = [using.open(), using.open()]
    clients[0].subscribe(using.queue, ack="client")
    clients[0].send(using.queue, b"hot potato")
    message = expect_bodies(clients[0], [b"hot potato"])[0]
    clients[1].subscribe(using.queue, ack="client")
    clients[0].nack(message)
    message = expect_bodies(clients[1], [b"hot potato"])[0]
    expect(message.info["headers"].get("redelivered"), "true", "redelivered")
    clients[1].ack(message)
    clients[0].unsubscribe("sub-1")
    nothing_but(clients[1], b"next", lambda body: clients[0].send(using.queue, body))


@each("what the only consumer had when it was cut is marked as redelivered for the next")
def _(using):
    client = using.open()
    client.subscribe(using.queue, ack="client")
    wanted = fill(using, using.queue, 2)
    expect_bodies(client, wanted)
    client.kill()
    client.wait_closed()
    other = using.open()
    other.subscribe(using.queue, ack="client")
    for message in expect_bodies(other, wanted):
        expect(message.info["headers"].get("redelivered"), "true", "redelivered")


@each("a message that two have refused comes a third time, and ACK ends it", versions=SINCE_1_1)
def _(using):
    clients = [using.open(), using.open()]
    for client in clients:
        client.subscribe(using.queue, ack="client")
    clients[0].send(using.queue, b"hot potato")
    for turn in (0, 1):
        clients[turn].nack(expect_bodies(clients[turn], [b"hot potato"])[0])
    third = next(client for client in clients * 150 if not client.is_silent() or time.sleep(0.05))
    third.ack(expect_bodies(third, [b"hot potato"])[0])


@each("NACK with requeue:false drops a message", versions=SINCE_1_1)
def _(using):
    client = using.open()
    client.subscribe(using.queue, ack="client-individual")
    client.send(using.queue, b"unwanted")
    client.nack(expect_bodies(client, [b"unwanted"])[0], requeue="false")
    nothing_but(client, b"next", lambda body: client.send(using.queue, body))


@each("a late second ACK of a message is no error", versions=SINCE_1_1)
def _(using):
    client = using.open()
    client.subscribe(using.queue, ack="client-individual")
    client.send(using.queue, b"x")
    message = expect_bodies(client, [b"x"])[0]
    client.ack(message)
    client.ack(message)
    nothing_but(client, b"next", lambda body: client.send(using.queue, body))


# ---- transactions -------------------------------------------------------------------------------------------------


@each("what is sent in a transaction comes after COMMIT, all of it and in order")
def _(using):
    client = using.open()
    client.subscribe(using.queue)
    wanted = [f"this is a test {number}".encode() for number in range(3)]
    client.begin("t")
    for body in wanted:
        client.send(using.queue, body, {"transaction": "t"})
    nothing_but(client, b"outside", lambda body: client.send(using.queue, body))
    client.commit("t")
    expect_bodies(client, wanted)


@each("what is sent in a transaction does not come after ABORT, what is sent beside it does")
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    client.begin("t")
    client.send(using.topic, b"inside", {"transaction": "t"})
    client.send(using.topic, b"outside")
    client.abort("t")
    expect_bodies(client, [b"outside"])
    nothing_but(client, b"after", lambda body: client.send(using.topic, body))


@each("of two open transactions each has its own end, and a name can be used again")
def _(using):
    client = using.open()
    client.subscribe(using.topic)
    for name in ("a", "b"):
        client.begin(name)
        client.send(using.topic, name.encode(), {"transaction": name})
    client.abort("a")
    client.begin("a")
    client.send(using.topic, b"a again", {"transaction": "a"})
    client.commit("b")
    client.commit("a")
    expect_bodies(client, [b"b", b"a again"])


@each("a transaction that is open when the client goes is aborted, said goodbye or not")
def _(using):
    listener = using.open()
    listener.subscribe(using.topic)
    for end in ("leave", "kill"):
        client = using.open()
        client.begin("t")
        client.send(using.topic, b"never", {"transaction": "t"})
        getattr(client, end)()
        client.wait_closed() if end == "kill" else client.wait_receipt("goodbye")
        nothing_but(listener, b"next", lambda body: listener.send(using.topic, body))


@each("ACK in a transaction counts after COMMIT, and after ABORT it was none")
def _(using):
    wanted = fill(using, using.queue, 2)
    for end, left in (("abort", wanted), ("commit", wanted[1:])):
        client = using.open()
        client.subscribe(using.queue, ack="client")
        messages = expect_bodies(client, wanted)
        client.begin("t")
        client.ack(messages[0], transaction="t")
        getattr(client, end)("t")
        client.send(f"{using.topic}/after", b"x")
        client.kill()
        client.wait_closed()
        wanted_then = left
    late = using.open()
    late.subscribe(using.queue)
    expect_bodies(late, wanted_then)
    nothing_but(late, b"next", lambda body: late.send(using.queue, body))


@each("consuming and sending on are one: dropped before COMMIT the job comes again and its result never")
def _(using):
    results = using.open()
    results.subscribe(using.topic)
    results.send(using.queue, b"job")
    for attempt in range(3):
        worker = using.open()
        worker.subscribe(using.queue, ack="client")
        job = expect_bodies(worker, [b"job"])[0]
        worker.begin("t")
        worker.send(using.topic, f"result {attempt}".encode(), {"transaction": "t"})
        worker.ack(job, transaction="t")
        if attempt == 2:
            worker.commit("t")
            worker.send(f"{using.topic}/after", b"x")
        worker.kill()
        worker.wait_closed()
    expect_bodies(results, [b"result 2"])
    late = using.open()
    late.subscribe(using.queue)
    nothing_but(late, b"next", lambda body: late.send(using.queue, body))
