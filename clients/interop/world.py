"""What every case is given, and the table the cases enter themselves in. Holds no case."""

import threading

from broker import Broker

CASES = []
# One broker runs all cases at once; these end it or need it alone, and run after the others.
ALONE = []


def case(sentence, alone=False):
    """Enters a function under its sentence."""

    def enter(function):
        assert sentence not in [known for known, _ in CASES + ALONE], f"two cases are called: {sentence}"
        (ALONE if alone else CASES).append((sentence, function))
        return function

    return enter


class Brokers:
    """One broker for each configuration that a case asks for, started when it is first asked for."""

    def __init__(self):
        self._lock = threading.Lock()
        self._entries = {}

    def get(self, more="", scram=()):
        with self._lock:
            lock, entry = self._entries.setdefault((more, scram), (threading.Lock(), []))
        # Outside the first lock: a broker that starts holds up nobody who wants another.
        with lock:
            if not entry:
                entry.append(Broker(more, scram))
            return entry[0]

    def all(self):
        return [entry[0] for _, entry in self._entries.values() if entry]

    def end(self):
        for broker in self.all():
            broker.end()


class World:
    """A case's broker, its agents (client programs behind a pipe), and a topic of its own."""

    def __init__(self, brokers, agents, number, broker=None):
        self._brokers, self.agents = brokers, agents
        self.broker = broker or brokers.get()
        self.topic = f"interop/{number}"
        self.name = f"interop-{number}"
        self.opened, self._names = [], 0

    def new_name(self):
        """A client identifier that nobody has."""
        self._names += 1
        return f"{self.name}-{self._names}"

    @property
    def port(self):
        return self.broker.port

    @property
    def agent(self):
        return self.agents["js"]

    def with_broker(self, more="", scram=()):
        """From here on this case talks to a broker with this configuration."""
        self.broker = self._brokers.get(more, scram)
        return self.broker

    def keep(self, client):
        self.opened.append(client)
        return client

    def close(self):
        # What was opened last may stand on what was opened first.
        for client in reversed(self.opened):
            try:
                client.close()
            except Exception:  # noqa: BLE001 - it may have been closed on purpose
                pass


def expect(actual, wanted, what="it"):
    assert actual == wanted, f"{what} is {actual!r:.300}, not {wanted!r:.300}"


def expect_payload(client, payload, what="the payload"):
    message = client.receive()
    expect(message.payload, payload, what)
    return message
