"""A SCRAM-SHA-256 client (RFC 5802, RFC 7677) for MQTT's authentication data. Knows no packet."""

import base64
import hashlib
import hmac
import os

METHOD = "SCRAM-SHA-256"


def _hmac(key, text):
    return hmac.digest(key, text, "sha256")


class Scram:
    """One exchange: `first()`, then `final(server_first)`, then `check(server_final)`."""

    def __init__(self, name, password):
        self._password = password.encode()
        self._nonce = base64.b64encode(os.urandom(18)).decode()
        self._bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"

    def first(self):
        return f"n,,{self._bare}".encode()

    def final(self, server_first):
        said = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert said["r"].startswith(self._nonce) and len(said["r"]) > len(self._nonce), "the nonce is not extended"
        assert int(said["i"]) >= 4096, "fewer iterations than RFC 7677 asks for"
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(said["s"]), int(said["i"]))
        without_proof = f"c=biws,r={said['r']}"
        message = f"{self._bare},{server_first.decode()},{without_proof}".encode()
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, server_final):
        assert server_final == b"v=" + base64.b64encode(self._server_signature), "the server does not know the password"
