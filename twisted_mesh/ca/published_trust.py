"""What the CA tells of whom to believe, as one object that is another one whenever it says something else."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property

from attrs import evolve, field, frozen
from cryptography import x509

from pki.jwt_svid.jwks import JwtAuthority
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import certificates_pem


@frozen
class JwtPublished:
    """The public keys that verify JWT-SVIDs, as the bundle has them."""

    authorities: tuple[JwtAuthority, ...] = ()
    sequence: int = 1
    """The JWT keys' part of the bundle's: the roots have another, and the sum of both grows with either."""


@frozen(repr=False, hash=False)
class Published:
    """All that the CA tells of whom to believe, but for what was revoked of leaves. Replaced whole."""

    bundles: BundleSet = field(factory=BundleSet)
    issuers: Mapping[str, tuple[x509.Certificate, ...]] = field(factory=dict)
    """By the key id of each issuing CA whose leaves may be in use: what is to be served above them, no root."""
    revoked_authorities: tuple[Revocation, ...] = ()
    """Of CA certificates, roots too; all of them."""
    withdrawn_pins: frozenset[str] = frozenset()
    """``sha256/BASE64`` of the SPKIs of CA keys that nobody is to rely on any more."""
    withdrawn_logs: frozenset[str] = frozenset()
    """Ids, in base64, of logs whose receipts nobody is to count any more."""

    federated_revocations: tuple[Revocation, ...] = ()
    """What the CAs of federated trust domains have revoked; all of it."""

    def federated(
        self, bundles: Iterable[TrustBundle], revocations: tuple[Revocation, ...]
    ) -> "Published":
        """The same for somebody who is given bundles of other trust domains too. Our own is never replaced."""
        own = self.bundles.bundles
        others = {b.trust_domain: b for b in bundles if b.trust_domain not in own}
        return evolve(
            self,
            bundles=BundleSet({**own, **others}),
            federated_revocations=revocations,
        )

    @cached_property
    def edition(self) -> str:
        """Of what it says: the same text for the same, after a restart too."""
        told = hashlib.sha256()
        for bundle in self.bundles:
            told.update(f"{bundle.trust_domain} {len(bundle.roots)} ".encode() + bundle.to_jwks())
        for issuer, above in sorted(self.issuers.items()):
            told.update(f"{issuer} {len(above)} ".encode() + certificates_pem(above))
        for revoked in (*self.revoked_authorities, *self.federated_revocations):
            told.update(f"{revoked.issuer} {revoked.serial} {revoked.expires_at} ".encode())
        told.update(" ".join(sorted(self.withdrawn_pins)).encode())
        told.update(" ".join(sorted(self.withdrawn_logs)).encode())
        return told.hexdigest()[:32]
