"""The broker under test as a child process. Ends only the process it started."""

import os
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path


def scram_line(binary, name, password):
    """A line of `auth.scram_file`, as the operator gets it: `tidegate scram NAME` with the password on stdin."""
    done = subprocess.run([binary, "scram", name], input=password + "\n", capture_output=True, text=True, check=True)
    return done.stdout


class Broker:
    """Runs `tidegate serve` with a configuration of its own on a free port; `scram` are pairs of name and password."""

    def __init__(self, more="", scram=()):
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-interop-")
        self.port = free_port()
        root = Path(__file__).resolve().parents[2]
        binary = str(os.environ.get("TIDEGATE_BIN", root / "target" / "debug" / "tidegate"))
        config = Path(self._folder.name) / "tidegate.toml"
        if scram:
            lines = [scram_line(binary, name, password) for name, password in scram]
            users = Path(self._folder.name) / "users"
            users.write_text("".join(lines))
            users.chmod(0o600)
            more += f'\n[auth]\nanonymous = "never"\nscram_file = "{users}"\n'
        config.write_text(
            f'[[listener]]\nbind = "127.0.0.1:{self.port}"\n\n[admin]\nbind = "127.0.0.1:{free_port()}"\n\n{more}'
        )
        self.log = []
        self._process = subprocess.Popen(
            [binary, "serve", "--config", str(config)],
            cwd=self._folder.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._wait_until_it_accepts()

    def _read(self):
        for line in self._process.stdout:
            self.log.append(line.rstrip())

    def _wait_until_it_accepts(self):
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.end()
                    raise SystemExit("the broker does not accept:\n" + "\n".join(self.log)) from None
                # The kernel tells nobody when a port begins to listen.
                time.sleep(0.02)

    def url(self, path="/"):
        return f"ws://127.0.0.1:{self.port}{path}"

    def terminate(self):
        """SIGTERM: the graceful stop."""
        self._process.terminate()

    def wait(self, timeout=15):
        return self._process.wait(timeout)

    def end(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._folder.cleanup()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
