"""How cases of STOMP are entered, and what each of them is given. Holds no case."""

from stomp_libraries import LIBRARIES, VERSIONS, can, open_library
from world import case, expect

SINCE_1_1 = ("1.1", "1.2")


def each(sentence, versions=VERSIONS, needs=(), libraries=LIBRARIES):
    """Enters the case for every library that offers what it needs, in each of the versions."""

    def enter(function):
        for library in libraries:
            for version in versions:
                if all(can(library, version, what) for what in needs):
                    it = lambda world, using=(library, version): function(Using(*using, world))  # noqa: E731
                    case(f"{library}, STOMP {version}: {sentence}")(it)

    return enter


class Using:
    """One library in one version, and places of its own."""

    def __init__(self, library, version, world):
        self.library, self.version, self.world = library, version, world
        self.topic, self.queue = f"/topic/{world.topic}", f"/queue/{world.topic}"

    def can(self, what):
        return can(self.library, self.version, what)

    def open(self, **options):
        return self.world.keep(open_library(self.library, self.version, self.world, **options))


def fill(using, destination, count):
    """Sends `count` numbered messages; returns their bodies."""
    sender = using.open()
    bodies = [str(number).encode() for number in range(count)]
    for body in bodies:
        sender.send(destination, body)
    return bodies


def heard(client, count):
    return [client.receive() for _ in range(count)]


def bodies_of(messages):
    return [message.payload for message in messages]


def expect_bodies(client, wanted, what="what came"):
    messages = heard(client, len(wanted))
    expect(bodies_of(messages), wanted, what)
    return messages


def nothing_but(client, marker, send):
    """What is sent last is what comes next: nothing came in between."""
    send(marker)
    expect(client.receive().payload, marker, "the next message")
