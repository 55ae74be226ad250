"""A TLS client that changes its keys as often as it likes: records made by hand, as no library makes them."""

import hashlib
import hmac
import socket
import ssl
from pathlib import Path

from attrs import define, field
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_UPDATE_REQUESTED = bytes.fromhex("1800000101")
_HANDSHAKE, _APPLICATION_DATA = b"\x16", b"\x17"


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of SHA-384 for at most one block (RFC 8446 section 7.1)."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.digest(secret, info + b"\x01", hashlib.sha384)[:length]


@define(eq=False)
class RecordWriter:
    """What a client says after its handshake with ``TLS_AES_256_GCM_SHA384`` (RFC 8446 section 5.2)."""

    secret: bytes
    _sequence: int = field(default=0, init=False)

    def record(self, content: bytes, kind: bytes = _APPLICATION_DATA) -> bytes:
        """One record."""
        nonce = int.from_bytes(_expand(self.secret, b"iv", 12), "big") ^ self._sequence
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        self._sequence += 1
        key = AESGCM(_expand(self.secret, b"key", 32))
        return header + key.encrypt(nonce.to_bytes(12, "big"), content + kind, header)

    def key_update(self) -> bytes:
        """A new key of ours, and the wish that the peer has a new one too (section 4.6.3)."""
        made = self.record(_KEY_UPDATE_REQUESTED, _HANDSHAKE)
        self.secret, self._sequence = _expand(self.secret, b"traffic upd", 48), 0
        return made


def shake_hands(wire: socket.socket, context: ssl.SSLContext, log: Path) -> RecordWriter:
    """Have a handshake by ``context``, and go on by hand on ``wire``. ``log`` is a file for its secrets."""
    log.unlink(missing_ok=True)
    context.keylog_filename = str(log)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            wire.sendall(outgoing.read())
            incoming.write(wire.recv(65536))
        else:
            break
    wire.sendall(outgoing.read())
    lines = dict(line.split()[::2] for line in log.read_text().splitlines() if line[0] != "#")
    return RecordWriter(bytes.fromhex(lines["CLIENT_TRAFFIC_SECRET_0"]))
