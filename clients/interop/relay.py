"""A TCP relay between clients and the broker that can be cut, or lose what clients say: a network that fails in the
middle of things."""

import socket
import threading


class Relay:
    """Listens on a free port and passes bytes on, until `cut` ends all connections; new ones are taken again."""

    def __init__(self, port):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock, self._sockets = threading.Lock(), []
        self.accepted, self._is_deaf = 0, False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path="/"):
        return f"ws://127.0.0.1:{self.port}{path}"

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            broker = socket.create_connection(("127.0.0.1", self._to))
            with self._lock:
                self._sockets += [client, broker]
            for end in (client, broker):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair in ((client, broker, True), (broker, client, False)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, target, is_client):
        try:
            while chunk := source.recv(4096):
                if not (is_client and self._is_deaf):
                    target.sendall(chunk)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def be_deaf(self):
        """From here on nothing that clients say arrives."""
        self._is_deaf = True

    def cut(self):
        with self._lock:
            ended, self._sockets = self._sockets, []
        for end in ended:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._listener.close()
        self.cut()
