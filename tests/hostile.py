"""Strangers that cost as much as they can: each known dear kind, by so many connections at once.

``python -m tests.hostile PORT KIND MOST SEED DIRECTORY`` comes back as soon as it is refused, from 127.0.0.1, until its
standard input ends; then it prints how many connections there were.
"""

import random
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pki.der import blocks
from pki.svid.names import subject_for
from tests.authorities import BACKEND, RSA_WITH, key, pem, rsa_key, tlv
from tests.flooding import garbage, half_a_handshake
from tests.running import CHECKOUT, PATIENCE
from twisted_mesh.testing import names

#: Seconds that a stranger waits for an answer before it tries the next connection.
_WAITS = 15.0
_BITS = 3072
#: OpenSSL takes exponents of more than 64 bits with moduli up to this size.
_HUGE_EXPONENT = (1 << (_BITS - 2)) | 1


@lru_cache(maxsize=2)
def dear_chain(seed: int = 1, length: int = 10) -> tuple[bytes, ...]:
    """Certificates in DER, leaf first, that take as long as possible to refuse.

    One name for all, so that each might have issued each; keys of RSA-3072 with an exponent as long as
    the modulus, so that a check takes as long as a hundred; AKIs that lead from each to the next, so
    that none is signed by itself and OpenSSL puts all of them into the one chain that it builds.
    """
    draw = random.Random(seed)
    name = subject_for(BACKEND)
    start = x509.load_der_x509_certificate(_leaf_of_today()).not_valid_before_utc
    identifiers = [draw.randbytes(20) for _ in range(length + 1)]
    found = []
    for position in range(length):
        if position:
            n = draw.getrandbits(_BITS) | 1 << (_BITS - 1) | 1
            public_key = rsa.RSAPublicNumbers(_HUGE_EXPONENT, n).public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public_key if position else key(9).public_key)
            .serial_number(draw.getrandbits(120) + 1)
            .not_valid_before(start)
            .not_valid_after(start + timedelta(hours=12))
            .add_extension(
                x509.AuthorityKeyIdentifier(identifiers[position + 1], None, None), False
            )
            .add_extension(x509.SubjectKeyIdentifier(identifiers[position]), False)
            .add_extension(x509.BasicConstraints(ca=bool(position), path_length=None), True)
        )
        if not position:
            builder = builder.add_extension(names(str(BACKEND)), False)
        body = builder.sign(rsa_key(), hashes.SHA256()).tbs_certificate_bytes
        signature = bytes(1) + draw.randbytes(_BITS // 8 - 1)  # below any modulus
        found.append(tlv(0x30, body + RSA_WITH["sha256"] + tlv(0x03, b"\0" + signature)))
    return tuple(found)


def _leaf_of_today() -> bytes:
    from tests.twisted_mesh.tls.wires import good_svid

    return good_svid().leaf.public_bytes(serialization.Encoding.DER)


def write_identity(directory: Path, chain: tuple[bytes, ...]) -> None:
    """What a stranger presents."""
    whole = b"".join(map(pem, chain))
    (directory / "stranger.pem").write_bytes(whole)
    (directory / "stranger_key.pem").write_bytes(key(9).to_pem())


@define(eq=False)
class Stranger:
    """One of them, and what it presents."""

    port: int
    directory: Path
    draw: random.Random

    def context(self, *, presents: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if presents:
            context.load_cert_chain(self._anew(), self.directory / "stranger_key.pem")
        return context

    def _anew(self) -> Path:
        """The chain with another signature on its leaf: refused before, it would be known again."""
        leaf, *others = blocks((self.directory / "stranger.pem").read_bytes())
        anew = leaf.der[:-16] + self.draw.randbytes(16)
        path = self.directory / f"stranger-{threading.get_ident()}.pem"
        path.write_bytes(b"".join(map(pem, (anew, *(block.der for block in others)))))
        return path

    def chain(self, wire: socket.socket) -> None:
        """A whole handshake with the dearest chain."""
        with suppress(OSError), self.context(presents=True).wrap_socket(wire) as secured:
            secured.recv(1)

    def huge(self, wire: socket.socket) -> None:
        """As many bytes as the other side takes of a first message that promises 128 KiB."""
        message = b"\x01\x01\xff\xf0\x03\x03" + self.draw.randbytes(130_000)
        for at in range(0, len(message), 16384):
            record = message[at : at + 16384]
            wire.sendall(b"\x16\x03\x01" + len(record).to_bytes(2, "big") + record)
        wire.recv(1)

    def nonsense(self, wire: socket.socket) -> None:
        """Bytes that are no TLS."""
        garbage(wire)
        wire.recv(1)

    def half(self, wire: socket.socket) -> None:
        """A ClientHello, whose answer costs two keys and a signature, and then goodbye."""
        half_a_handshake(wire)
        wire.recv(1)

    def mixed(self, wire: socket.socket) -> None:
        """Any of them."""
        self.draw.choice(list(KINDS.values()))(self, wire)


KINDS: dict[str, Callable[[Stranger, socket.socket], None]] = {
    "chain": Stranger.chain,
    "huge": Stranger.huge,
    "nonsense": Stranger.nonsense,
    "half": Stranger.half,
}


def main(port: str, kind: str, most: str, seed: str, directory: str) -> None:
    """So many at once, each with its own draw, until the standard input ends."""
    opened = [0] * int(most)
    over = threading.Event()
    behave = getattr(Stranger, kind)

    def come_back(number: int) -> None:
        stranger = Stranger(int(port), Path(directory), random.Random(f"{seed} {number}"))
        while not over.is_set():
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", int(port)), _WAITS) as wire,
            ):
                opened[number] += 1
                behave(stranger, wire)

    threads = [threading.Thread(target=come_back, args=(n,), daemon=True) for n in range(int(most))]
    for thread in threads:
        thread.start()
    print("under way", flush=True)
    sys.stdin.read()
    over.set()
    print(sum(opened), flush=True)


@contextmanager
def attacked(
    port: int, kind: str, directory: Path, *, most: int = 24, seed: int = 1
) -> Iterator[list[int]]:
    """So many strangers of that kind, in a process of their own; afterwards the list has how often they came."""
    write_identity(directory, dear_chain(seed))
    command = (
        sys.executable,
        "-m",
        __name__,
        str(port),
        kind,
        str(most),
        str(seed),
        str(directory),
    )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        opened: list[int] = []
        try:
            yield opened
        finally:
            process.stdin.close()
            opened.append(int(process.stdout.read()))
            assert process.wait(PATIENCE) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
