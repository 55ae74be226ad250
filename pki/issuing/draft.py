"""Drafts: whole certificates but for their signature, and what becomes of one that logs are shown before it is signed.

A draft's to-be-signed bytes are the very bytes that were linted and the very bytes that get signed. Of one that is to
be logged there are three (RFC 6962 section 3.1): as it was drafted, as the precertificate that logs answer, and with
their answers in it. All but the last extension is the same in all three, to the byte.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from attrs import evolve, field, frozen
from cryptography import x509

from pki.ct.precertificate import with_poison, with_scts
from pki.ct.sct import SignedCertificateTimestamp, list_bytes
from pki.issuing.lint import LintFailed
from pki.issuing.logged_lint import lint_final, lint_precertificate
from pki.issuing.profile import Profile
from pki.issuing.unsigned import assemble


@frozen(eq=False, repr=False)
class Draft:
    """A certificate that passed every lint and is not signed yet; only an ``Authority`` makes one."""

    profile: Profile
    tbs: bytes
    """The bytes that were linted, and that will be signed."""
    algorithm: bytes
    """The signature's AlgorithmIdentifier, in DER."""
    serial: int
    subject: str
    """As :func:`pki.svid.x509svid.subject_of` writes it."""
    not_after: datetime
    spki: bytes
    """The SubjectPublicKeyInfo, in DER."""
    seal: object = field(repr=False)

    @property
    def spki_digest(self) -> str:
        """The SHA-256 of the SubjectPublicKeyInfo in hex, as :func:`pki.keys.key_id` makes it."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def unsigned(self) -> x509.Certificate:
        """The certificate with a placeholder for its signature; decoded anew each time."""
        return x509.load_der_x509_certificate(assemble(self.tbs, self.algorithm))

    def precertificate(self) -> "Draft":
        """What logs are shown of it: the same with the poison, which no TLS library believes.

        Raises :class:`LintFailed`.
        """
        tbs = with_poison(self.tbs)
        if problems := lint_precertificate(tbs, self):
            raise LintFailed(problems)
        return evolve(self, tbs=tbs)

    def with_receipts(self, scts: Sequence[SignedCertificateTimestamp]) -> "Draft":
        """The certificate to be, with what logs have answered. Raises :class:`LintFailed`, :class:`BadSct` for none."""
        tbs = with_scts(self.tbs, list_bytes(scts))
        if problems := lint_final(tbs, self, scts):
            raise LintFailed(problems)
        return evolve(self, tbs=tbs)
