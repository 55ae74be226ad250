"""What a receipt promises: that an entry is in the log at its place. Kept until somebody has looked."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Self

import msgspec
from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import merkle_leaf_of, signed_entry_of
from pki.ct.errors import BadSct
from pki.ct.evidence import MissingEntry
from pki.ct.log_list import LogList
from pki.ct.receipt import judge_receipts
from pki.ct.sct import SignedCertificateTimestamp
from pki.errors import HOSTILE_INPUT, Malformed
from pki.tlog.merkle import leaf_hash


class Kept(msgspec.Struct):
    """As it is written down."""

    certificate: str
    issuer: str
    sct: str


@frozen
class Promise:
    """One receipt of a certificate that was met, and verified."""

    certificate: x509.Certificate = field(repr=False)
    issuer: x509.Certificate = field(repr=False)
    sct: SignedCertificateTimestamp
    index: int
    """Where in the log the entry is."""
    leaf_hash: bytes
    """Of that entry."""

    @classmethod
    def of(
        cls,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        sct: SignedCertificateTimestamp,
    ) -> Self:
        """Raises :class:`~pki.errors.PkiError` for a receipt that does not say where its entry is."""
        index = sct.leaf_index
        if index is None:
            raise BadSct("it does not say where its entry is")
        leaf = merkle_leaf_of(signed_entry_of(certificate, issuer), sct.timestamp, sct.extensions)
        return cls(certificate, issuer, sct, index, leaf_hash(leaf))

    @property
    def log_id(self) -> bytes:
        """Whose it is."""
        return self.sct.log_id

    @property
    def key(self) -> tuple[bytes, int, bytes]:
        """By what two are told to be the same."""
        return self.log_id, self.index, self.leaf_hash

    def missing(
        self, checkpoint: str, found: bytes = b"", proof: tuple[bytes, ...] = ()
    ) -> MissingEntry:
        """What shows that it was not kept."""
        certificate, issuer = (
            one.public_bytes(Encoding.DER) for one in (self.certificate, self.issuer)
        )
        return MissingEntry(certificate, issuer, self.sct, checkpoint, found, proof)

    def kept(self) -> Kept:
        """As it is written down."""
        return Kept(_der(self.certificate), _der(self.issuer), _text(self.sct.to_bytes()))

    @classmethod
    def recalled(cls, kept: Kept) -> Self:
        """Raises :class:`~pki.errors.PkiError`."""
        try:
            certificate, issuer = (
                x509.load_der_x509_certificate(base64.b64decode(text))
                for text in (kept.certificate, kept.issuer)
            )
            sct = SignedCertificateTimestamp.parse(base64.b64decode(kept.sct))
        except HOSTILE_INPUT:
            raise Malformed("what was kept of a receipt is damaged") from None
        return cls.of(certificate, issuer, sct)


def promises_of(
    certificate: x509.Certificate, issuer: x509.Certificate, logs: LogList, now: datetime
) -> Sequence[Promise]:
    """What the receipts promise that count. Raises :class:`~pki.errors.PkiError` where they cannot be read."""
    return [
        Promise.of(certificate, issuer, receipt.sct)
        for receipt in judge_receipts(certificate, issuer, logs, now)
        if receipt.counts and receipt.sct.leaf_index is not None
    ]


def _der(certificate: x509.Certificate) -> str:
    return _text(certificate.public_bytes(Encoding.DER))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
