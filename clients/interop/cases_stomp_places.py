"""Durable subscriptions, replies, shared groups and the separator, as STOMP libraries that nobody here wrote use them."""

from mqtt_libraries import LIBRARIES as MQTT
from stomp_cases import each, expect_bodies, fill, heard, nothing_but
from world import expect

def _rabbit(using):
    """RabbitMQ's dialect: it goes by the id and the destination. What CONNECT says, and what SUBSCRIBE says."""
    return {}, {"id": f"durable-{using.world.name}", "durable": "true", "auto-delete": "false"}


def _activemq(header):
    """ActiveMQ's and Artemis' dialect: it goes by a name within the client-id."""
    return lambda using: ({"client-id": using.world.name}, {"id": "any", header: "my subscription"})


DIALECTS = {
    "durable:true": _rabbit,
    "activemq.subscriptionName": _activemq("activemq.subscriptionName"),
    "durable-subscription-name": _activemq("durable-subscription-name"),
}


def _durable(using, dialect, ack="auto"):
    connect, subscribe = DIALECTS[dialect](using)
    client = using.open(headers=connect)
    client.subscribe(using.topic, ack=ack, headers=subscribe)
    return client, subscribe


def _each_dialect(dialect):
    @each(f"{dialect}: what comes while the client is away waits for it, in order, after a goodbye and after a cut")
    def _(using):
        for end in ("leave", "kill"):
            client, _ = _durable(using, dialect)
            getattr(client, end)()
            client.wait_closed() if end == "kill" else client.wait_receipt("goodbye")
            wanted = fill(using, using.topic, 10)
            client, _ = _durable(using, dialect)
            expect_bodies(client, wanted, f"what waited after {end}")
            nothing_but(client, b"live", lambda body: client.send(using.topic, body))
            client.leave()
            client.wait_receipt("goodbye")

    @each(f"{dialect}: what was not acknowledged comes again")
    def _(using):
        client, _ = _durable(using, dialect, ack="client")
        wanted = fill(using, using.topic, 4)
        messages = expect_bodies(client, wanted)
        client.ack(messages[1])
        client.kill()
        client.wait_closed()
        client, _ = _durable(using, dialect, ack="client")
        expect_bodies(client, wanted[2:])

    @each(f"{dialect}: UNSUBSCRIBE with the same headers forgets it")
    def _(using):
        client, said = _durable(using, dialect)
        client.unsubscribe(said["id"], said)
        fill(using, using.topic, 3)
        client.leave()
        client.wait_receipt("goodbye")
        client, _ = _durable(using, dialect)
        nothing_but(client, b"live", lambda body: client.send(using.topic, body))


for _dialect in DIALECTS:
    _each_dialect(_dialect)


@each("a subscription that is not durable has nothing waiting after a reconnect")
def _(using):
    client = using.open(headers={"client-id": using.world.name})
    client.subscribe(using.topic)
    client.leave()
    client.wait_receipt("goodbye")
    fill(using, using.topic, 3)
    client = using.open(headers={"client-id": using.world.name})
    client.subscribe(using.topic)
    nothing_but(client, b"live", lambda body: client.send(using.topic, body))


@each("a reply to /temp-queue/ comes to who asked and to nobody else, without a SUBSCRIBE")
def _(using):
    server, askers = using.open(), [using.open(), using.open()]
    server.subscribe(using.queue)
    for number, asker in enumerate(askers):
        asker.send(using.queue, f"{number}?".encode(), {"reply-to": "/temp-queue/answers", "correlation-id": f"c {number}"})
    for question in heard(server, 2):
        said = question.info["headers"]
        server.send(said["reply-to"], question.payload + b"!", {"correlation-id": said["correlation-id"]})
    for number, asker in enumerate(askers):
        answer = expect_bodies(asker, [f"{number}?!".encode()])[0]
        said = answer.info["headers"]
        expect((said["correlation-id"], said["subscription"]), (f"c {number}", "/temp-queue/answers"))


@each("share:G makes one group of a STOMP client and an mqtt.js client")
def _(using):
    stomper, sender = using.open(), using.open()
    mqtt = MQTT["mqtt.js", 5](using.world.broker, using.world, using.world.new_name())
    name = using.topic.removeprefix("/topic/")
    mqtt.subscribe(f"$share/group/{name}", 1)
    stomper.subscribe(using.topic, ack="client", headers={"share": "group"})
    wanted = [str(number).encode() for number in range(20)]
    for body in wanted:
        sender.send(using.topic, body)
    mine = [message.payload for message in heard(stomper, 10)]
    others = [mqtt.receive().payload for _ in range(10)]
    expect(sorted(mine + others), sorted(wanted), "what the two share")


@each("a job that mqtt.js puts below queue/ is consumed from /queue/, and the other way round")
def _(using):
    name = using.queue.removeprefix("/queue/")
    mqtt = MQTT["mqtt.js", 5](using.world.broker, using.world, using.world.new_name())
    mqtt.publish(f"queue/{name}", b"from MQTT", 1)
    stomper = using.open()
    stomper.subscribe(using.queue, ack="client")
    stomper.ack(expect_bodies(stomper, [b"from MQTT"])[0])
    stomper.unsubscribe("sub-1")
    mqtt.subscribe(f"$share/queue/queue/{name}", 1)
    stomper.send(using.queue, b"from STOMP")
    expect(mqtt.receive().payload, b"from STOMP")


@each("what mqtt.js publishes with QoS 1 waits for the ACK of a durable subscription")
def _(using):
    client, _ = _durable(using, "durable:true", ack="client")
    client.kill()
    client.wait_closed()
    mqtt = MQTT["mqtt.js", 4](using.world.broker, using.world, using.world.new_name())
    mqtt.publish(using.topic.removeprefix("/topic/"), b"meanwhile", 1)
    client, _ = _durable(using, "durable:true", ack="client")
    client.ack(expect_bodies(client, [b"meanwhile"])[0])


@each("with the separator `.` wildcards are * and #, and topics keep their dots for MQTT")
def _(using):
    using.world.with_broker('[stomp]\nseparator = "."\n')
    dotted = using.topic.removeprefix("/topic/").replace("/", ".")
    mqtt = MQTT["mqtt.js", 5](using.world.broker, using.world, using.world.new_name())
    mqtt.subscribe(f"{dotted.replace('.', '/')}/#", 1)
    client = using.open()
    client.subscribe(f"/topic/{dotted}.*.temp")
    client.subscribe(f"/topic/{dotted}.4.#")
    for name in ("3.temp", "4.a.b", "3.hum", "5%2E1.temp"):
        client.send(f"/topic/{dotted}.{name}", name.encode())
    wanted = [f"/topic/{dotted}.{name}" for name in ("3.temp", "4.a.b", "5%2E1.temp")]
    expect([message.topic for message in heard(client, 3)], wanted)
    names = [mqtt.receive().topic for _ in range(4)]
    expect(names, [f"{dotted.replace('.', '/')}/{name}" for name in ("3/temp", "4/a/b", "3/hum", "5.1/temp")])


@each("with unknown_prefix = topic a destination of any prefix is a topic")
def _(using):
    using.world.with_broker('[stomp]\nunknown_prefix = "topic"\n')
    client = using.open()
    client.subscribe(f"/topics/{using.world.topic}")
    client.send(f"/topics/{using.world.topic}", b"x")
    expect_bodies(client, [b"x"])
