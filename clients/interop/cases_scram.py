"""Login by SCRAM-SHA-256 over MQTT 5's AUTH, to a broker whose users were made by `tidegate scram`."""

from mqtt_packets import Packets, packet, properties_bytes
from scram import METHOD, Scram
from world import case, expect

# A name with SCRAM's separators, a password outside ASCII that SASLprep leaves as it is.
USERS = (("ada", "correct horse"), ("a,b=c", "pässword"))


def broker_with_users(world):
    world.with_broker(scram=USERS)


def auth(it, reason, data):
    said = {"authentication_method": METHOD, "authentication_data": data}
    it.send(packet("AUTH", bytes([reason]) + properties_bytes(5, said)))
    return it.read()


def begin(world, scram, client_id="", method=METHOD, **connect):
    """A connection after its CONNECT, and what the broker answered to it."""
    it = world.keep(Packets(world.port))
    said = {"authentication_method": method, "authentication_data": scram.first()}
    return it, it.connect(client_id, properties={**said, **connect.pop("properties", {})}, **connect)


def login(world, name, password, **connect):
    """A connection that is logged in, its server checked."""
    scram = Scram(name, password)
    it, challenge = begin(world, scram, **connect)
    expect((challenge.kind, challenge.reason), ("AUTH", 0x18), "the answer to CONNECT")
    expect(challenge.properties["authentication_method"], METHOD)
    it.connack = auth(it, 0x18, scram.final(challenge.properties["authentication_data"]))
    expect((it.connack.kind, it.connack.reason), ("CONNACK", 0), "the answer to the proof")
    expect(it.connack.properties["authentication_method"], METHOD)
    scram.check(it.connack.properties["authentication_data"])
    return it


def refused(it, answer, wanted):
    assert answer.kind == "CONNACK" and answer.reason in wanted, answer
    it.end_of()


@case("SCRAM: every user logs in, is shown that the broker knows the password, and publishes")
def _(world):
    broker_with_users(world)
    for name, password in USERS:
        it = login(world, name, password)
        it.subscribe((world.topic, 2))
        it.publish(world.topic, name.encode(), 2)
        expect(it.receive().payload, name.encode())


@case("SCRAM: a wrong password and an unknown user look alike until the end, and both are refused")
def _(world):
    broker_with_users(world)
    for name, password in (("ada", "wrong"), ("nobody", "correct horse")):
        scram = Scram(name, password)
        it, challenge = begin(world, scram)
        expect((challenge.kind, challenge.reason), ("AUTH", 0x18), f"the answer to {name}")
        refused(it, auth(it, 0x18, scram.final(challenge.properties["authentication_data"])), (0x86, 0x87))


@case("SCRAM: an unknown user has the same salt each time, as a known one has")
def _(world):
    broker_with_users(world)
    for name in ("ada", "nobody"):
        salts = set()
        for _attempt in range(2):
            said = begin(world, Scram(name, "x"))[1].properties["authentication_data"].decode()
            salts.add(said.partition("s=")[2])
        expect(len(salts), 1, f"the number of salts of {name}")


@case("SCRAM: an unknown method is refused with 0x8C, and no login at all with 0x86 or 0x87")
def _(world):
    broker_with_users(world)
    it, answer = begin(world, Scram("ada", "x"), method="SCRAM-SHA-1")
    refused(it, answer, (0x8C,))
    for user, password in ((None, None), ("ada", "correct horse")):
        it = world.keep(Packets(world.port))
        refused(it, it.connect("plain", user=user, password=password), (0x86, 0x87, 0x8C))
    it = world.keep(Packets(world.port, 4))
    refused(it, it.connect("plain"), (4, 5))


@case("SCRAM: data that is no SCRAM, a nonce of another exchange, and a packet in the middle are refused")
def _(world):
    broker_with_users(world)
    for garbage in (b"", b"\xff\xfe", b"n,,", b"y,,n=ada,r=", b"p=tls-unique,,n=ada,r=abc"):
        it = world.keep(Packets(world.port))
        said = {"authentication_method": METHOD, "authentication_data": garbage}
        answer = it.connect("garbage", properties=said)
        assert answer.kind == "CONNACK" and answer.reason in (0x81, 0x82, 0x86, 0x87), f"{garbage}: {answer}"
    old = Scram("ada", "correct horse")
    proof = old.final(begin(world, old)[1].properties["authentication_data"])
    it, _challenge = begin(world, Scram("ada", "correct horse"))
    refused(it, auth(it, 0x18, proof), (0x82, 0x86, 0x87))
    it, _challenge = begin(world, Scram("ada", "correct horse"))
    it.send(packet("PINGREQ"))
    try:
        assert it.read().kind != "PINGRESP", "it serves who has not logged in"
    except Exception as ended:  # noqa: BLE001 - the close may come without a packet
        assert type(ended).__name__.startswith("ConnectionClosed"), ended


@case("SCRAM: re-authentication works while messages flow, and a wrong one ends the connection")
def _(world):
    broker_with_users(world)
    it = login(world, "ada", "correct horse")
    it.subscribe((world.topic, 1))
    for _round in range(2):
        scram = Scram("ada", "correct horse")
        challenge = auth(it, 0x19, scram.first())
        expect((challenge.kind, challenge.reason), ("AUTH", 0x18), "the answer to AUTH 0x19")
        it.publish(world.topic, b"meanwhile", 1)
        expect(it.receive().payload, b"meanwhile")
        done = auth(it, 0x18, scram.final(challenge.properties["authentication_data"]))
        expect((done.kind, done.reason), ("AUTH", 0), "the answer to the proof")
        scram.check(done.properties["authentication_data"])
    scram = Scram("ada", "wrong")
    challenge = auth(it, 0x19, scram.first())
    proof = scram.final(challenge.properties["authentication_data"])
    it.send(packet("AUTH", b"\x18" + properties_bytes(5, {"authentication_method": METHOD, "authentication_data": proof})))
    assert it.end_of() in (0x86, 0x87), "the wrong password was taken"


@case("SCRAM: another method or another user in a re-authentication ends the connection")
def _(world):
    broker_with_users(world)
    it = login(world, "ada", "correct horse")
    said = {"authentication_method": "SCRAM-SHA-1", "authentication_data": b"n,,n=ada,r=abc"}
    it.send(packet("AUTH", b"\x19" + properties_bytes(5, said)))
    assert it.end_of() in (0x82, 0x8C), "another method was taken"
    it = login(world, "ada", "correct horse")
    it.send(packet("AUTH", b"\x18" + properties_bytes(5, {"authentication_method": METHOD, "authentication_data": b""})))
    expect(it.end_of(), 0x82, "the answer to an AUTH 0x18 that continues nothing")


@case("SCRAM: AUTH from a client that connected without a method is a protocol error")
def _(world):
    it = world.keep(Packets(world.port)).open("no-method")
    said = {"authentication_method": METHOD, "authentication_data": b"n,,n=ada,r=abc"}
    it.send(packet("AUTH", b"\x19" + properties_bytes(5, said)))
    expect(it.end_of(), 0x82)


@case("SCRAM: a session belongs to its user: another user with the client identifier does not get it")
def _(world):
    broker_with_users(world)
    (ada, first), (other, second) = USERS
    more = {"client_id": f"{world.name}-mine", "clean": False, "properties": {"session_expiry_interval": 60}}
    it = login(world, ada, first, **more)
    it.subscribe((world.topic, 1))
    it.cut()
    expect(login(world, ada, first, **more).connack.session_present, True, "session present for its user")
    scram = Scram(other, second)
    it, challenge = begin(world, scram, **more)
    answer = auth(it, 0x18, scram.final(challenge.properties["authentication_data"])) if challenge.kind == "AUTH" else challenge
    assert answer.reason >= 0x80 or not answer.session_present, "the other user got the session"
