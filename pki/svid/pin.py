"""A root that is known by its fingerprint alone, and what must be true of the certificate that has it."""

import re
from typing import Self

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem, Refused, discreet, printable
from pki.spiffe import TrustDomain
from pki.svid.bundle import BadBundle, TrustBundle
from pki.svid.path import issued_by
from pki.svid.x509svid import certificates_pem, issuer_of, subject_of, uri_names

_HEX = re.compile(
    r"(sha256:)?([0-9a-f]{64}|[0-9a-f]{2}(:[0-9a-f]{2}){31})", re.ASCII | re.IGNORECASE
)


class BadFingerprint(Malformed):
    """The text is no SHA-256 fingerprint."""

    code = Code.BAD_FINGERPRINT


@frozen
class Fingerprint:
    """The SHA-256 of a certificate in DER. ``Fingerprint.parse(str(x)) == x``."""

    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """``sha256:`` and 64 digits of hex; also without it, in upper case, with colons as openssl prints it.

        Raises :class:`BadFingerprint`.
        """
        match = _HEX.fullmatch(text)
        if match is None:
            raise BadFingerprint(
                f"{discreet(text, 100)!r} is no SHA-256 fingerprint: write sha256: and 64 digits of hex, as the CA "
                "prints it at its start"
            )
        return cls(bytes.fromhex(match[2].replace(":", "")))

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """The SHA-256 of the certificate in DER."""
        return cls(certificate.fingerprint(hashes.SHA256()))

    def __str__(self) -> str:
        return f"sha256:{self.digest.hex()}"


@frozen
class RootPin:
    """The root of one trust domain, as long as nothing but its fingerprint is known."""

    fingerprint: Fingerprint
    trust_domain: TrustDomain

    def objection(self, top: bytes) -> Problem | None:
        """Why the certificate at the top of a chain, in DER, is not that root. Never raises."""
        try:
            return self._objection(x509.load_der_x509_certificate(top))
        except HOSTILE_INPUT:
            return Problem(
                Code.MALFORMED, "the root that was sent cannot be decoded", "ask who runs the CA"
            )

    def bundle(self, top: bytes) -> TrustBundle:
        """That root, now that it was met. Raises :class:`Refused`."""
        if (objection := self.objection(top)) is not None:
            raise Refused((objection,))
        return TrustBundle(self.trust_domain, (x509.load_der_x509_certificate(top),))

    def _objection(self, top: x509.Certificate) -> Problem | None:
        found, subject = Fingerprint.of(top), subject_of(top)
        its_own = top.issuer == top.subject
        if found != self.fingerprint and its_own:
            return Problem(
                Code.WRONG_FINGERPRINT,
                f"the root that was sent has the fingerprint {found}, and the one to believe has {self.fingerprint}",
                "compare with what the CA prints at its start: either the fingerprint is another CA's, or of a root "
                "that was replaced, or somebody poses as the CA",
                subject=subject,
            )
        if found != self.fingerprint:
            return Problem(
                Code.INCOMPLETE_CHAIN,
                f"no root was sent, so nothing can be compared with {self.fingerprint}: the chain ends in {subject}, "
                f"{found}",
                "check the address of the CA: mesh-ca sends its root along",
                subject=subject,
            )
        if not its_own or not issued_by(top, top):
            return Problem(
                Code.NOT_A_ROOT,
                f"the certificate with the fingerprint {found} is no root: it is not signed by itself but by "
                f"{issuer_of(top)}",
                "pin the root's fingerprint, which the CA prints at its start",
                subject=subject,
            )
        try:
            TrustBundle.from_pem(self.trust_domain, certificates_pem([top]))
        except BadBundle as error:
            return Problem(Code.NOT_A_CA, str(error), "pin the root's fingerprint", subject=subject)
        if (names := uri_names(top)) != [str(self.trust_domain.id)]:
            told = ", ".join(printable(name, 100) for name in names[:3]) or "no trust domain"
            return Problem(
                Code.UNKNOWN_TRUST_DOMAIN,
                f"the root with the fingerprint {found} names {told} and not {self.trust_domain.id}",
                "say with --trust-domain whose CA it is",
                subject=subject,
            )
        return None
