"""Sources: where a service's own identity comes from."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from pki.bundle import BundleSet
from pki.csr import build_csr
from pki.errors import Malformed, PkiError
from pki.keys import KeyAlgorithm, MemoryKey
from pki.names import IPAddress
from pki.revocation import Revocation
from pki.spiffe import SpiffeId
from pki.svid import X509Svid
from twisted_mesh.ca_client import CaClient
from twisted_mesh.clock import Now
from twisted_mesh.interfaces import ISource
from twisted_mesh.witness import Witness

#: The statuses by which the CA says that a CSR breaks a rule, or bought a certificate that is over.
_HOPELESS = (422, 409)


@frozen
class Identity:
    """A certificate with its key, whom it may believe, and when it was issued by our own clock."""

    svid: X509Svid
    bundles: BundleSet
    issued_at: datetime


@frozen
class _Question:
    """What the CA is being asked, until it has answered."""

    key: MemoryKey = field(repr=False)
    csr: bytes
    idempotency_key: str = field(factory=lambda: secrets.token_hex(16))


async def new_key(algorithm: KeyAlgorithm) -> MemoryKey:
    """A fresh key. RSA takes up to a second, so it is made on a thread."""
    if algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_4096):
        return await deferToThread(MemoryKey.generate, algorithm)
    return MemoryKey.generate(algorithm)


@implementer(ISource)
@define(eq=False)
class CaSource:
    """An identity from a CA by its API. The key is made here and never leaves."""

    client: CaClient
    spiffe_id: SpiffeId
    now: Now
    log: Logger
    dns_names: Sequence[str] = ()
    ip_addresses: Sequence[IPAddress] = ()
    ttl: timedelta | None = None
    witness: Witness = field(factory=lambda: Witness(None))
    """Of the CA's audit log."""
    _asking: "_Question | None" = field(default=None, init=False, repr=False)
    _svid: X509Svid | None = field(default=None, init=False)
    _store: str = field(default="", init=False)
    _position: int = field(default=0, init=False)

    @property
    def where(self) -> str:
        return str(self.client.address)

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        if self._asking is None:
            self._asking = await self._ask_with_new_key(algorithm)
        asking = self._asking
        self._present()
        issued_at = self.now()
        try:
            chain = await self.client.sign(
                asking.csr, self.spiffe_id, self.ttl, asking.idempotency_key
            )
            bundle = await self.client.bundle(self.spiffe_id.trust_domain)
            svid = X509Svid.assemble(chain, asking.key)
        except PkiError as error:
            if isinstance(error, Malformed) or getattr(error, "status", None) in _HOPELESS:
                self._asking = None  # with this key and CSR it would never be otherwise
            raise
        self._asking, self._svid = None, svid
        self._present()
        return Identity(svid, BundleSet.of(bundle), issued_at)

    async def _ask_with_new_key(self, algorithm: KeyAlgorithm) -> _Question:
        """A key for the next certificate, and its CSR."""
        self.log.info(
            "Generating service key pair ({algorithm})...",
            event="key-generated",
            algorithm=algorithm.label,
        )
        key = await new_key(algorithm)
        self.log.info(
            "Creating CSR for identity: {spiffe_id}",
            event="csr-created",
            spiffe_id=str(self.spiffe_id),
        )
        csr = build_csr(key, self.spiffe_id, self.dns_names, self.ip_addresses)
        self.log.info(
            "Requesting certificate from CA at {ca}...",
            event="certificate-requested",
            ca=f"{self.where}/api/v1/sign" if self.client.address.host else self.where,
        )
        return _Question(key, csr)

    def _present(self) -> None:
        """Prove ourselves to the CA by the SVID that we have, as long as it is valid."""
        valid = self._svid is not None and self._svid.validity.contains(self.now())
        self.client.present(self._svid if valid else None)

    async def revocations(self) -> Sequence[Revocation]:
        news = await self.client.trust(self._position, self._store, self.witness.size)
        self._store, self._position = news.store, news.position
        if news.log is not None:
            self.witness.hear(news.log, self.now().timestamp())
        return news.revocations


@implementer(ISource)
@define(eq=False)
class OwnSource:
    """The CA's own identity, which it issues to itself."""

    issue: Callable[[MemoryKey], Any]
    """A coroutine function: the chain for that key, leaf first."""
    bundles: Callable[[], BundleSet]
    now: Now
    where: str = "itself"

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        key = await new_key(algorithm)
        issued_at = self.now()
        chain: Sequence[x509.Certificate] = await self.issue(key)
        return Identity(X509Svid.assemble(chain, key), self.bundles(), issued_at)

    async def revocations(self) -> Sequence[Revocation]:
        """Nothing: the CA tells its own manager at once."""
        return ()
