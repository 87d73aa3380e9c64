"""Outside clients behind one interface: open, subscribe, publish, receive, close. MQTT's are in mqtt_libraries.py.

Holds no expectations (those are in cases.py) and no protocol code of our own: every byte is made by a client that
nobody here wrote. Waiting is always for an event, with a deadline.
"""

import base64
import json
import queue
import subprocess
import threading
from dataclasses import dataclass, field
from urllib.parse import quote

import msgpack
import stomp
from stomp.adapter.ws import WSStompConnection
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as ws_connect

# Generous: cases run side by side on machines that do other things too.
PATIENCE_SECONDS = 15.0


@dataclass
class Message:
    """What a subscriber heard; `topic` is None in payload mode."""

    topic: str | None
    payload: bytes
    info: dict = field(default_factory=dict)


class Client:
    """Events of one connection."""

    def __init__(self):
        self._messages = queue.Queue()
        self._closed = queue.Queue()
        self._pongs = queue.Queue()

    def receive(self, timeout=PATIENCE_SECONDS):
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"{type(self).__name__} heard nothing for {timeout} s") from None

    def wait_closed(self, timeout=PATIENCE_SECONDS):
        try:
            return self._closed.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"{type(self).__name__} was not closed within {timeout} s") from None

    def wait_pong(self, timeout=PATIENCE_SECONDS):
        try:
            return self._pongs.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("no answer to the ping") from None

    def is_silent(self):
        return self._messages.empty()

    def hear(self, said):
        """An event that only some kinds of client have."""


class Agent:
    """A program behind a pipe that runs many clients of a library from another language; any thread may call it.

    It runs from the first call on: cases of one library need not have the others built.
    """

    def __init__(self, command):
        self._command, self._process = command, None
        self._answers, self._clients, self._number = {}, {}, 0
        self._lock = threading.Lock()

    def _run(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self._process.stdout:
            said = json.loads(line)
            if "answer" in said:
                self._answers.pop(said["answer"]).put(said)
                continue
            client = self._clients.get(said.get("client"))
            if client is None:
                continue
            if said["event"] == "message":
                payload = base64.b64decode(said["payload"])
                client._messages.put(Message(said["topic"], payload, said.get("info", {})))
            elif said["event"] == "closed":
                client._closed.put(said["info"])
            elif said["event"] == "pong":
                client._pongs.put(True)
            else:
                client.hear(said)

    def call(self, timeout=PATIENCE_SECONDS, **request):
        return self.wait(self.start(**request), timeout)

    def start(self, **request):
        """Says it, and does not wait; what it returns is for `wait`."""
        answer = queue.Queue()
        with self._lock:
            if self._process is None:
                self._run()
            self._number += 1
            self._answers[self._number] = answer
            self._process.stdin.write((json.dumps({"number": self._number, **request}) + "\n").encode())
            self._process.stdin.flush()
        return answer

    def wait(self, answer, timeout=PATIENCE_SECONDS):
        try:
            said = answer.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no answer within {timeout} s") from None
        if "error" in said:
            raise ConnectionError(said["error"])
        return said["value"]

    def end(self):
        if self._process is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


class JsClient(Client):
    """stompjs, ws or a page, in the agent."""

    def __init__(self, agent, kind, options):
        super().__init__()
        self._agent, self.name = agent, f"{kind}{id(self)}"
        agent._clients[self.name] = self
        self.opened = agent.call(client=self.name, command="open", kind=kind, options=options, timeout=30)

    def subscribe(self, topic, **options):
        self._agent.call(client=self.name, command="subscribe", topic=topic, options=options)

    def publish(self, topic, payload, **options):
        text = base64.b64encode(payload).decode()
        self._agent.call(client=self.name, command="publish", topic=topic, payload=text, options=options)

    def ping(self):
        self._agent.call(client=self.name, command="ping")

    def kill(self):
        self._agent.call(client=self.name, command="kill")

    def close(self):
        self._agent.call(client=self.name, command="close")


class StompPy(Client, stomp.ConnectionListener):
    """stomp.py's WebSocket connection, STOMP 1.2."""

    def __init__(self, port, heartbeats=(0, 0), token="v12.stomp"):
        super().__init__()
        self._receipts = {}
        self._lock = threading.Lock()
        self._number = 0
        self.beats = queue.Queue()
        self._it = WSStompConnection(
            [("127.0.0.1", port)], ws_path="/stomp", header={"Sec-WebSocket-Protocol": token}, auto_decode=False,
            heartbeats=heartbeats, reconnect_attempts_max=1,
        )
        self._it.set_listener("", self)
        self._it.connect(wait=True)

    def on_message(self, frame):
        topic = frame.headers["destination"].removeprefix("/topic/")
        body = frame.body if isinstance(frame.body, bytes) else frame.body.encode()
        self._messages.put(Message(topic, body, {"headers": frame.headers}))

    def on_receipt(self, frame):
        self._receipt(frame.headers["receipt-id"]).put(True)

    def on_error(self, frame):
        self._closed.put({"error": frame.headers.get("message")})

    def on_disconnected(self):
        self._closed.put({})

    def on_heartbeat(self):
        self.beats.put(True)

    def _receipt(self, name):
        with self._lock:
            return self._receipts.setdefault(name, queue.Queue())

    def _new_receipt(self):
        self._number += 1
        return f"r{self._number}"

    def subscribe(self, topic, ack="auto", **headers):
        name = self._new_receipt()
        self._it.subscribe(f"/topic/{topic}", id=f"s{self._number}", ack=ack, receipt=name, **headers)
        self._receipt(name).get(timeout=PATIENCE_SECONDS)

    def publish(self, topic, payload, headers=None):
        name = self._new_receipt()
        body = payload if isinstance(payload, str) else payload
        self._it.send(f"/topic/{topic}", body, headers={"receipt": name, **(headers or {})})
        self._receipt(name).get(timeout=PATIENCE_SECONDS)

    def ack(self, message):
        self._it.ack(message.info["headers"]["ack"])

    def nack(self, message):
        self._it.nack(message.info["headers"]["ack"])

    def close(self):
        self._it.disconnect()


class Envelope(Client):
    """The raw envelope through Python websockets: JSON in text frames or MessagePack in binary ones."""

    def __init__(self, port, packed=False, deflate=False, token="raw"):
        super().__init__()
        self._packed, self._number = packed, 0
        self._answers = queue.Queue()
        compression = "deflate" if deflate else None
        self._it = ws_connect(
            f"ws://127.0.0.1:{port}/ws", subprotocols=[token], compression=compression, max_size=None, proxy=None
        )
        self.token, self.response = self._it.subprotocol, self._it.response
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        try:
            for frame in self._it:
                assert isinstance(frame, bytes) == self._packed, "the answer came in the other kind of frame"
                said = msgpack.unpackb(frame) if self._packed else json.loads(frame)
                if said["op"] == "msg":
                    self._messages.put(Message(said["topic"], payload_of(said), said))
                else:
                    self._answers.put(said)
        except ConnectionClosed:
            pass
        self._closed.put({"code": self._it.close_code, "reason": self._it.close_reason})

    def call(self, **request):
        self._number += 1
        self.say({"id": self._number, **request})
        said = self._answers.get(timeout=PATIENCE_SECONDS)
        if said["op"] == "err":
            raise ConnectionError(f"{said['code']}: {said['reason']}")
        return said

    def say(self, request):
        self._it.send(msgpack.packb(request) if self._packed else json.dumps(request))

    def answer(self):
        return self._answers.get(timeout=PATIENCE_SECONDS)

    def subscribe(self, topic, **options):
        return self.call(op="sub", topic=topic, **options)

    def publish(self, topic, payload, **options):
        return self.call(op="pub", topic=topic, **self._payload(payload), **options)

    def _payload(self, payload):
        if self._packed:
            return {"bin": payload}
        try:
            return {"text": payload.decode()}
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(payload).decode()}

    def close(self):
        self._it.close()


class Payload(Client):
    """Raw payload mode through Python websockets."""

    def __init__(self, port, query, deflate=False, **options):
        super().__init__()
        compression = "deflate" if deflate else None
        self._it = ws_connect(
            f"ws://127.0.0.1:{port}/ws?{query}", compression=compression, max_size=None, proxy=None, **options
        )
        self.token, self.response = self._it.subprotocol, self._it.response
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        try:
            for frame in self._it:
                text = isinstance(frame, str)
                self._messages.put(Message(None, frame.encode() if text else frame, {"binary": not text}))
        except ConnectionClosed:
            pass
        self._closed.put({"code": self._it.close_code, "reason": self._it.close_reason})

    def subscribe(self, topic):
        pass

    def publish(self, topic, payload, binary=True):
        self._it.send(payload if binary else payload.decode())

    def ping(self):
        assert self._it.ping().wait(PATIENCE_SECONDS), "no pong"

    def kill(self):
        self._it.socket.close()

    def close(self):
        self._it.close()


def payload_of(said):
    """The payload of an envelope's `msg`: exactly one of its keys."""
    keys = [key for key in ("data", "text", "b64", "bin") if key in said]
    assert len(keys) == 1, f"a msg has exactly one payload key, this one has {keys}"
    value = said[keys[0]]
    if keys[0] == "data":
        return json.dumps(value).encode()
    if keys[0] == "b64":
        return base64.b64decode(value)
    return value.encode() if isinstance(value, str) else value


def query(*filters, pub=None, **more):
    """The query of payload mode."""
    parts = [f"t={quote(topic, safe='')}" for topic in filters]
    parts += [f"pub={quote(pub, safe='')}"] if pub else []
    return "&".join(parts + [f"{key}={value}" for key, value in more.items()])
