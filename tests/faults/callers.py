"""Clients of a CA that may be gone at any moment: what they ask for, and what they hold afterwards."""

import http.client
import json
import random
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ca_socket import CaSocket
from tests.faults.checker import Evidence

_PATIENCE = 10.0
#: So many errands at most are left open before another is begun.
_AT_ONCE = 3
#: So many old errands are asked about again at the end.
_ASKED_AGAIN = 20
#: What a CA that is going, coming or busy makes of a connection.
_GONE = (OSError, http.client.HTTPException, ValueError)


@define
class Doors:
    """Where the CA of the moment answers."""

    socket: Path
    root: Path
    plain: Callable[[], int]
    """Its plaintext port. Raises :class:`ConnectionRefusedError` while there is none."""
    tls: Callable[[], int]


class TlsConnection(http.client.HTTPSConnection):
    """HTTPS to this machine. To wrap first and connect then leaves no socket behind where the CA dies in between."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__("localhost", port, timeout=_PATIENCE, context=context)
        self._secured_by = context

    def connect(self) -> None:
        self.sock = self._secured_by.wrap_socket(socket.socket(), server_hostname=self.host)
        self.sock.settimeout(_PATIENCE)
        try:
            self.sock.connect(("127.0.0.1", self.port))
        except BaseException:
            self.close()
            raise


@define(eq=False)
class Errand:
    """One certificate that is wanted, and what came of it."""

    key: ec.EllipticCurvePrivateKey
    spiffe_id: str
    csr: str
    idempotency_key: str | None
    is_plain: bool = False
    """Whether it goes to the plaintext port: an Idempotency-Key is one caller's."""
    """There nobody's entry buys anything, so what came from it is not renewed over TLS."""
    renews: "Errand | None" = None
    chain: str = ""
    serials: list[int] = field(factory=list)
    """Of every certificate that it was answered with."""
    is_revoked: bool = False

    @classmethod
    def make(cls, spiffe_id: str, idempotency_key: str | None) -> "Errand":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        csr = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        return cls(key, spiffe_id, pem, idempotency_key)

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def identity(self, directory: Path) -> Path:
        """Certificate and key in one file, as ``ssl`` wants them."""
        path = directory / f"{self.serials[-1]:x}.pem"
        if not path.exists():
            key = self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            path.write_text(self.chain + key.decode())
        return path


@define(eq=False)
class Caller:
    """One client: issues, renews, revokes, asks again for what it was not answered."""

    name: str
    listeners: Doors
    directory: Path
    draw: random.Random
    held: list[bytes] = field(factory=list)
    errands: list[Errand] = field(factory=list)
    """Those that were answered, and that nobody revoked."""
    open: list[Errand] = field(factory=list)
    """Those under an Idempotency-Key whose answer did not come."""
    revoking: list[Errand] = field(factory=list)
    revoked: dict[int, str] = field(factory=dict)
    idempotent: set[bytes] = field(factory=set)
    checkpoints: list[str] = field(factory=list)
    verifier: str = ""
    complaints: list[str] = field(factory=list)
    """Answers that nobody should get."""
    answers: int = 0
    unavailable: int = 0
    _count: int = 0
    _connections: dict[str, http.client.HTTPConnection] = field(factory=dict)

    def live(self, stop: threading.Event) -> None:
        """Go on until told to stop; a CA that is gone is asked again."""
        try:
            while not stop.is_set():
                try:
                    is_done = self.act()
                except _GONE:
                    is_done = False
                    self.hang_up()
                if not is_done:
                    stop.wait(0.05)
        finally:
            self.hang_up()

    def act(self) -> bool:
        """One request. Whether the CA did what was asked."""
        die = self.draw.random()
        if self.open and (die < 0.5 or len(self.open) >= _AT_ONCE):
            return self._run(self.open[0])
        if self.revoking and die < 0.7:
            return self._revoke(self.revoking[0])
        if self.errands and die < 0.1:
            chosen = self.draw.choice(self.errands)
            self.errands.remove(chosen)
            self.revoking.append(chosen)
            return self._revoke(chosen)
        if self.errands and die < 0.25:
            return self._repeat(self.draw.choice(self.errands))
        renewable = [errand for errand in self.errands if not errand.is_plain]
        if renewable and die < 0.45:
            return self._begin(renews=self.draw.choice(renewable))
        if die < 0.5:
            return self._look_at_log()
        return self._begin(None)

    def finish(self) -> bool:
        """Get done what was left open, once the CA is well again. Whether all is done."""
        for errand in list(self.open):
            self._run(errand)
        for errand in list(self.revoking):
            self._revoke(errand)
        for errand in self.errands[-_ASKED_AGAIN:]:
            self._repeat(errand)
        self._look_at_log()
        return not self.open and not self.revoking

    def _begin(self, renews: Errand | None) -> bool:
        self._count += 1
        idempotency_key = f"{self.name}-{self._count}" if self.draw.random() < 0.6 else None
        spiffe_id = renews.spiffe_id if renews else f"spiffe://mesh.local/service/{self.name}"
        errand = Errand.make(spiffe_id, idempotency_key)
        errand.renews = renews
        errand.is_plain = self.draw.random() < 0.4
        if idempotency_key:
            self.open.append(errand)
            self.idempotent.add(errand.spki)
        return self._run(errand)

    def _repeat(self, errand: Errand) -> bool:
        return True if errand.idempotency_key is None else self._run(errand)

    def _run(self, errand: Errand) -> bool:
        if errand.renews is not None and errand.renews.is_revoked:
            self._forget(errand)  # it would have to prove itself by what we revoked meanwhile
            return True
        asked = {"csr": errand.csr, "requested_id": errand.spiffe_id}
        headers = {"Idempotency-Key": errand.idempotency_key} if errand.idempotency_key else {}
        if errand.renews is not None:
            connection = self._proven(errand.renews)
        else:
            connection = self._unproven(is_plain=errand.is_plain)
        status, told = self._ask(connection, "POST", "/api/v1/sign", asked, headers)
        if status == 503:
            return False
        if status != 201:
            self._forget(errand)
            self.complaints.append(f"sign: {status} {told}")
            return False
        certificate = x509.load_pem_x509_certificate(told["certificate"].encode())
        issuer = x509.load_pem_x509_certificate(told["chain"][0].encode())
        certificate.verify_directly_issued_by(issuer)
        if certificate.serial_number not in errand.serials:
            self.held.append(certificate.public_bytes(serialization.Encoding.DER))
            errand.serials.append(certificate.serial_number)
            if len(errand.serials) > 1:
                self.complaints.append(f"one Idempotency-Key was answered with {errand.serials}")
        errand.chain = told["certificate"] + "".join(told["chain"])
        self._forget(errand)
        if errand not in self.errands:
            self.errands.append(errand)
        return True

    def _forget(self, errand: Errand) -> None:
        if errand in self.open:
            self.open.remove(errand)

    def _revoke(self, errand: Errand) -> bool:
        serial = errand.serials[-1]
        errand.is_revoked = True  # as soon as it may be
        asked = {"serial": f"{serial:x}".zfill(-(-len(f"{serial:x}") // 2) * 2)}
        connection = self._unproven(is_plain=self.draw.random() < 0.4)
        status, told = self._ask(connection, "POST", "/api/v1/revoke", asked, {})
        if status != 200:
            if status != 503:
                self.complaints.append(f"revoke: {status} {told}")
            return False
        self.revoked[serial] = told["revoked_at"]
        self.revoking.remove(errand)
        return True

    def _look_at_log(self) -> bool:
        connection = self._unproven(is_plain=False)
        status, told = self._ask(connection, "GET", "/api/v1/audit/checkpoint", None, {})
        if status != 200 or told["checkpoint"] is None:
            return False
        if self.verifier not in ("", told["verifier"]):
            self.complaints.append("the audit log has another key")
        self.verifier = told["verifier"]
        self.checkpoints.append(told["checkpoint"])
        return True

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        verb: str,
        path: str,
        body: object,
        headers: dict[str, str],
    ) -> tuple[int, Any]:
        sent = None if body is None else json.dumps(body)
        if sent is not None:
            headers = {**headers, "Content-Type": "application/json"}
        connection.request(verb, path, sent, headers)
        response = connection.getresponse()
        told = json.loads(response.read())
        self.answers += 1
        if response.status == 503:
            self.unavailable += 1
            if int(response.headers.get("Retry-After", "0")) < 1:
                self.complaints.append(f"503 without Retry-After: {told}")
        return response.status, told

    def _unproven(self, *, is_plain: bool) -> http.client.HTTPConnection:
        if not is_plain:
            return self._kept("socket", lambda: CaSocket(self.listeners.socket, _PATIENCE))
        port = self.listeners.plain()
        return self._kept(
            f"plain {port}",
            lambda: http.client.HTTPConnection("localhost", port, timeout=_PATIENCE),
        )

    def _proven(self, proof: Errand) -> http.client.HTTPConnection:
        port = self.listeners.tls()

        def connection() -> http.client.HTTPConnection:
            context = ssl.create_default_context(cafile=self.listeners.root)
            context.load_cert_chain(proof.identity(self.directory))
            return TlsConnection(port, context)

        return self._kept(f"tls {port} {proof.serials[-1]:x}", connection)

    def _kept(
        self, name: str, make: Callable[[], http.client.HTTPConnection]
    ) -> http.client.HTTPConnection:
        """A connection that is kept alive; a new one now and then."""
        if len(self._connections) > 8 or self.draw.random() < 0.05:
            self.hang_up()
        if name not in self._connections:
            self._connections[name] = make()
        return self._connections[name]

    def hang_up(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def evidence_of(callers: list[Caller]) -> Evidence:
    """What all of them hold together."""
    return Evidence(
        certificates=tuple(der for caller in callers for der in caller.held),
        revoked={s: told for caller in callers for s, told in caller.revoked.items()},
        idempotent=frozenset(key for caller in callers for key in caller.idempotent),
        verifier=next((caller.verifier for caller in callers if caller.verifier), ""),
        checkpoints=tuple(note for caller in callers for note in caller.checkpoints),
    )
