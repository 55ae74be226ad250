"""What is revoked in another PKI, by the CRLs that are configured: read once, and relied on while they are current."""

from collections.abc import Sequence
from datetime import datetime

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from pki.codes import Code
from pki.crl.crl import BadCrl, Crl, find_issuer, read_crl
from pki.errors import Malformed, PkiError, Problem
from pki.svid.path import Path, with_issuers
from pki.svid.x509svid import subject_of
from pki.validity import rfc3339
from twisted_mesh.attest.errors import AttestorUnavailable

#: CAs whose CRL was looked for. Only such are asked about that a configured root vouches for.
_MOST_REMEMBERED = 256


@define(eq=False, repr=False)
class ForeignCrls:
    """Where there are any, a certificate that none of them covers counts as revoked."""

    crls: Sequence[bytes]
    """In DER."""
    _read: dict[bytes, Crl | None] = field(factory=dict, init=False)
    """By the SHA-256 of their issuer's certificate; None where that has none."""

    def problems(self, path: Path, now: datetime) -> list[Problem]:
        """Why a path to a root is not good; the root itself is configured, and nobody revokes it.

        Raises :class:`AttestorUnavailable` where that cannot be said: a CRL is stale, or is none of its issuer.
        """
        if not self.crls:
            return []
        found = []
        for cert, issuer in with_issuers(path):
            if cert is issuer:
                continue
            crl = self._of(issuer, now)
            if crl is None or not crl.covers(cert):
                detail = f"no CRL of {subject_of(issuer)} that covers it is configured"
                found.append(_problem(cert, Code.UNKNOWN_REVOCATION, detail))
            elif crl.find(cert.serial_number) is not None:
                found.append(_problem(cert, Code.REVOKED, "it is revoked"))
        return found

    def _of(self, issuer: x509.Certificate, now: datetime) -> Crl | None:
        name = issuer.fingerprint(SHA256())
        if name not in self._read:
            if len(self._read) >= _MOST_REMEMBERED:
                self._read.clear()
            self._read[name] = self._find(issuer, now)
        crl = self._read[name]
        if crl is not None and now > crl.next_update:
            raise AttestorUnavailable(
                f"the CRL of {subject_of(issuer)} that is configured ended at {rfc3339(crl.next_update)}: put the next "
                "one in its place, and have the CA read it (SIGHUP)"
            )
        return crl

    def _find(self, issuer: x509.Certificate, now: datetime) -> Crl | None:
        """The newest of its CRLs. Raises :class:`AttestorUnavailable` where one has its name and is no good."""
        found: list[Crl] = []
        for der in self.crls:
            try:
                if find_issuer(der, (issuer,)) is not None:
                    found.append(read_crl(der, issuer, now=now))
            except (BadCrl, Malformed) as error:
                raise AttestorUnavailable(_unusable(issuer, error)) from None
        return max(found, key=lambda crl: crl.this_update, default=None)


def _unusable(issuer: x509.Certificate, error: PkiError) -> str:
    return f"a CRL of {subject_of(issuer)} that is configured cannot be relied on: {error}"


def _problem(cert: x509.Certificate, code: Code, detail: str) -> Problem:
    return Problem(
        code, detail, "show another certificate", "RFC 5280 section 6.3", subject_of(cert)
    )
