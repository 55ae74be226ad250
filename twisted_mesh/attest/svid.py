"""Attests whoever holds a current SVID, by the TLS handshake that proved it."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import ClassVar, Self

from attrs import define, evolve
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from zope.interface import implementer

from pki.codes import Code
from pki.errors import Problem
from pki.policy.selector import KINDS, SelectorKind
from pki.spiffe import SpiffeId
from twisted_mesh.attest.evidence import Attestation, Evidence, Lapsed, WithoutChallenge, seen
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stores.records import IssuedCertificate, Status


class NoLongerGood(Lapsed):
    """The certificate that a connection was opened with would not be let in again."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = tuple(problems)
        why = "; ".join(map(str, problems)) or "this connection is being closed"
        super().__init__(
            f"the certificate that this connection was opened with proves nothing any more: {why}. Connect again with "
            "a current one"
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What there is to object to the certificate now."""
        return self._problems or super().problems


class SvidExpired(NoLongerGood):
    """It has ended since."""

    code = Code.EXPIRED


class SvidRevoked(NoLongerGood):
    """It, or a certificate that it rests on, has been revoked since."""

    code = Code.REVOKED


class SvidOfAnotherDomain(NoLongerGood):
    """Its trust domain is not, or is no more, among those that are believed."""

    code = Code.UNKNOWN_TRUST_DOMAIN


class NotOnRecord(NoLongerGood):
    """Its issuing CA is revoked, and it is no valid certificate that this CA has on record."""

    code = Code.REVOKED

    def __init__(self) -> None:
        super().__init__(
            [
                Problem(
                    Code.REVOKED,
                    "its issuing CA is revoked, and it is not on record here as a valid certificate, byte for byte",
                    "join anew with a token (mesh-ctl token create)",
                )
            ]
        )


@implementer(IAttestor)
@define(eq=False, repr=False)
class SvidAttestor(WithoutChallenge):
    """``x509:<SPIFFE ID>`` over mutual TLS.

    The handshake may be long ago: the right ends with the certificate, not with the connection. Of what a revoked CA
    has signed only that counts which is on record, to be renewed: whoever has that CA's key can sign anything else.
    """

    find_certificate: Callable[[int], Awaitable[IssuedCertificate | None]]
    now: Now

    name: ClassVar[str] = "svid"
    kinds: ClassVar[tuple[SelectorKind, ...]] = (KINDS["x509"],)

    @classmethod
    def of(cls, means: Means) -> Self:
        """One that asks the record where the evidence alone does not do."""
        return cls(means.find_certificate, means.now)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """Who the handshake proved. Raises :class:`NoLongerGood` where that would not be let in again."""
        peer = evidence.peer
        if peer is None:
            return None
        if not peer.is_good:
            raise _no_longer_good(peer.objections)
        seen = _attestation(peer.proven.spiffe_id, peer.proven.leaf)
        if not peer.only_renews:
            return seen
        await self._demand_on_record(peer.proven.leaf)
        return evolve(seen, only_renews=True)

    async def _demand_on_record(self, leaf: x509.Certificate) -> None:
        """Raises :class:`NotOnRecord`, and StoreError where nobody can say."""
        found = await self.find_certificate(leaf.serial_number)
        if (
            found is None
            or found.der is None
            or found.der != leaf.public_bytes(serialization.Encoding.DER)
            or found.status(self.now()) is not Status.VALID
        ):
            raise NotOnRecord


def _no_longer_good(problems: Sequence[Problem]) -> NoLongerGood:
    codes = {problem.code for problem in problems}
    kinds = (SvidRevoked, SvidOfAnotherDomain, SvidExpired)
    return next((kind for kind in kinds if kind.code in codes), NoLongerGood)(problems)


@lru_cache(maxsize=1024)
def _attestation(spiffe_id: SpiffeId, leaf: x509.Certificate) -> Attestation:
    """What a certificate says never changes; whether it is still good is asked each time."""
    return Attestation(f"x509:{spiffe_id}", seen("x509", spiffe_id), spiffe_id, leaf.serial_number)
