"""STOMP libraries over WebSocket behind one interface, each in all three versions. Those from JavaScript are in
stomp_clients.cjs.

Holds no expectations (those are in cases_stomp*.py) and no frame of our own, but for `raw`.
"""

import base64
import queue
import socket
import threading

import stomp
from stomp.adapter.ws import WSStompConnection, WSTransport
from stomp.connect import BaseConnection, StompConnection10, StompConnection11
from stomp.exception import ConnectFailedException
from stomp.protocol import Protocol10, Protocol11

from clients import PATIENCE_SECONDS, Client, Message

VERSIONS = ("1.0", "1.1", "1.2")
LIBRARIES = ("stompjs", "stomp.py", "webstomp-client")
# What a library has no way to say or to show; the cases that need it leave it out.
CANNOT = {
    "stompjs": {"receipts of transactions", "repeated headers", "escapes of escapes"},
    "stomp.py": {"skip content-length"},
    # It takes a body for text, and headers for free of what had to be escaped.
    "webstomp-client": {
        "binary", "escapes", "escapes of escapes", "receipts of transactions", "repeated headers", "other versions",
    },
}
# It escapes in 1.2 alone.
CANNOT_IN = {("stompjs", "1.1"): {"escapes"}}


class Refused(Exception):
    """The ERROR that answered CONNECT."""

    def __init__(self, headers, body):
        super().__init__(headers.get("message"))
        self.headers, self.body = headers, body


class Stomper(Client):
    """What a case does with a client. `destination` is always the whole one, and so is a message's `topic`."""

    def __init__(self, version):
        super().__init__()
        self.version = version
        self._receipts, self._lock, self._number = {}, threading.Lock(), 0
        self.errors, self.beats = queue.Queue(), queue.Queue()

    def wait_receipt(self, name):
        try:
            return self._receipt(name).get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            error = None if self.errors.empty() else self.errors.get()
            raise AssertionError(f"no receipt {name} within {PATIENCE_SECONDS} s; ERROR: {error}") from None

    def wait_error(self):
        """Headers and body of the ERROR."""
        try:
            return self.errors.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise AssertionError(f"no ERROR within {PATIENCE_SECONDS} s") from None

    def has_receipt(self, name):
        return not self._receipt(name).empty()

    def new_receipt(self):
        self._number += 1
        return f"receipt-{self._number}"

    def _receipt(self, name):
        with self._lock:
            return self._receipts.setdefault(name, queue.Queue())

    def send(self, destination, body, headers=None, **options):
        """Waits for the RECEIPT."""
        name = self.new_receipt()
        self.begin_send(destination, body, {"receipt": name, **(headers or {})}, **options)
        self.wait_receipt(name)

    def subscribe(self, destination, ack="auto", headers=None):
        """Waits for the RECEIPT; returns the `id`."""
        name = self.new_receipt()
        said = {"id": f"sub-{self._number}", "ack": ack, "receipt": name, **(headers or {})}
        self.begin_subscribe(destination, said)
        self.wait_receipt(name)
        return said["id"]

    def unsubscribe(self, id, headers=None):
        name = self.new_receipt()
        self.begin_unsubscribe(id, {"receipt": name, **(headers or {})})
        self.wait_receipt(name)

    def ack(self, message, **headers):
        self._answer("begin_ack", message, headers)

    def nack(self, message, **headers):
        self._answer("begin_nack", message, headers)

    def _answer(self, method, message, headers):
        name = self.new_receipt()
        getattr(self, method)(message, {"receipt": name, **headers})
        self.wait_receipt(name)


class JsStomper(Stomper):
    """stompjs or webstomp-client, in the agent."""

    def __init__(self, agent, kind, broker, version, versions=None, **options):
        super().__init__(version)
        self._agent, self.name = agent, f"{kind}-{id(self)}"
        agent._clients[self.name] = self
        options = {"url": broker.url("/stomp"), "versions": versions or [version], **options}
        opened = agent.call(client=self.name, command="open", kind=kind, options=options, timeout=30)
        if "refused" in opened:
            raise Refused(**opened["refused"])
        self.connected, self.token = opened["headers"], opened["token"]

    def hear(self, said):
        if said["event"] in ("receipt", "goodbye"):
            self._receipt(said["headers"]["receipt-id"]).put(True)
        elif said["event"] == "error":
            self.errors.put((said["headers"], said["body"]))
        elif said["event"] == "beat":
            self.beats.put(True)
        elif said["event"] == "lost":
            self._closed.put({"lost": True})

    def _call(self, method, *args):
        self._agent.call(client=self.name, command="call", method=method, args=args)

    def begin_send(self, destination, body, headers, **options):
        self._call("send", destination, base64.b64encode(body).decode(), headers, options)

    def begin_subscribe(self, destination, headers):
        self._call("subscribe", destination, headers)

    def begin_unsubscribe(self, id, headers):
        self._call("unsubscribe", id, headers)

    def begin_ack(self, message, headers):
        self._call("ack", message.info["number"], headers)

    def begin_nack(self, message, headers):
        self._call("nack", message.info["number"], headers)

    def ack_id(self, id, subscription, receipt):
        self._call("ackId", id, subscription, {"receipt": receipt})

    def begin(self, transaction):
        self._call("begin", transaction)

    def commit(self, transaction):
        self._call("commit", transaction)

    def abort(self, transaction):
        self._call("abort", transaction)

    def raw(self, text):
        self._call("raw", text)

    def kill(self):
        self._call("kill")

    def close(self):
        self._call("close", {})

    def leave(self):
        """DISCONNECT; the name of its receipt."""
        self._call("close", {"receipt": "goodbye"})
        return "goodbye"


class WSConnection10(StompConnection10):
    """stomp.py has a WebSocket connection for 1.2 alone; this is its 1.0 on the same transport."""

    def __init__(self, transport):
        BaseConnection.__init__(self, transport)
        Protocol10.__init__(self, transport)


class WSConnection11(StompConnection11):
    """Its 1.1 on the same transport."""

    def __init__(self, transport, heartbeats):
        BaseConnection.__init__(self, transport)
        Protocol11.__init__(self, transport, heartbeats)


class PyStomper(Stomper, stomp.ConnectionListener):
    """stomp.py."""

    def __init__(self, broker, version, tokens=None, headers=None, heartbeat=(0, 0), binary=False):
        super().__init__(version)
        self.token = ",".join(tokens or [f"v{version.replace('.', '')}.stomp"])
        self.connected = None
        where = {
            "host_and_ports": [("127.0.0.1", broker.port)], "ws_path": "/stomp", "auto_decode": False,
            "header": {"Sec-WebSocket-Protocol": self.token}, "reconnect_attempts_max": 1, "binary_mode": binary,
        }
        heartbeat = tuple(heartbeat)
        if version == "1.2":
            self._it = WSStompConnection(heartbeats=heartbeat, **where)
        else:
            transport = WSTransport(**where)
            self._it = WSConnection10(transport) if version == "1.0" else WSConnection11(transport, heartbeat)
        self._it.set_listener("", self)
        try:
            self._it.connect(wait=True, headers=headers)
        except ConnectFailedException as failed:
            try:
                raise Refused(*self.errors.get(timeout=1)) from None
            except queue.Empty:
                raise ConnectionError("the connection failed") from failed

    def on_connected(self, frame):
        self.connected = frame.headers

    def on_message(self, frame):
        self._messages.put(Message(frame.headers["destination"], frame.body, {"headers": frame.headers}))

    def on_receipt(self, frame):
        self._receipt(frame.headers["receipt-id"]).put(True)

    def on_error(self, frame):
        self.errors.put((frame.headers, frame.body.decode()))

    def on_disconnected(self):
        self._closed.put({})

    def on_heartbeat(self):
        self.beats.put(True)

    def begin_send(self, destination, body, headers, text=False):
        self._it.send(destination, body.decode() if text else body, headers=headers)

    def subscribe_without_id(self, destination):
        """As STOMP 1.0 allows it."""
        name = self.new_receipt()
        self._it.subscribe(destination, headers={"receipt": name})
        self.wait_receipt(name)

    def unsubscribe_destination(self, destination):
        name = self.new_receipt()
        self._it.unsubscribe(destination=destination, headers={"receipt": name})
        self.wait_receipt(name)

    def begin_subscribe(self, destination, headers):
        more = {name: value for name, value in headers.items() if name not in ("id", "ack")}
        self._it.subscribe(destination, id=headers["id"], ack=headers["ack"], headers=more)

    def begin_unsubscribe(self, id, headers):
        self._it.unsubscribe(id=id, headers=headers)

    def begin_ack(self, message, headers):
        self._it.ack(*self._identifiers(message.info["headers"]), **headers)

    def begin_nack(self, message, headers):
        self._it.nack(*self._identifiers(message.info["headers"]), **headers)

    def _identifiers(self, headers):
        """Each version asks for others."""
        return {
            "1.0": lambda: [headers["message-id"]],
            "1.1": lambda: [headers["message-id"], headers["subscription"]],
            "1.2": lambda: [headers["ack"]],
        }[self.version]()

    def ack_id(self, id, subscription, receipt):
        self._it.ack(*([id, subscription] if self.version == "1.1" else [id]), receipt=receipt)

    def begin(self, transaction, receipt=None):
        self._it.begin(transaction, headers={"receipt": receipt} if receipt else None)

    def commit(self, transaction, receipt=None):
        self._it.commit(transaction, headers={"receipt": receipt} if receipt else None)

    def abort(self, transaction, receipt=None):
        self._it.abort(transaction, headers={"receipt": receipt} if receipt else None)

    def raw(self, text):
        self._it.transport.send(text.encode())

    def kill(self):
        self._it.transport.socket.sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._it.disconnect()

    def leave(self):
        """DISCONNECT; the name of its receipt."""
        self._it.disconnect("goodbye")
        return "goodbye"


def can(library, version, what):
    return what not in CANNOT[library] | CANNOT_IN.get((library, version), set())


def open_library(library, version, world, via=None, **options):
    """`via` is a relay to the broker."""
    to = via or world.broker
    if library == "stomp.py":
        return PyStomper(to, version, **options)
    kind = {"stompjs": "stompjs", "webstomp-client": "webstomp"}[library]
    return JsStomper(world.agent, kind, to, version, **options)
