"""A key in a certificate that it has signed itself, for those who know it by its pin and by nothing else.

The certificate is only what TLS carries the key in, as a raw public key would be (RFC 7250). Its dates mean nothing:
whoever is not to be believed any more is unpinned.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Self

from attrs import define
from cryptography import x509

from pki.keys import MemoryKey, spki_der
from pki.svid.spki_pin import SpkiHash

#: What has no end of its own (RFC 5280 section 4.1.2.5).
_NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_EARLIER = timedelta(days=1)


@define(eq=False, repr=False)
class SelfSigned:
    """What one side of such a connection shows."""

    key: MemoryKey
    certificate: x509.Certificate

    @classmethod
    def of(
        cls, key: MemoryKey, subject: str, now: datetime, names: Iterable[x509.GeneralName] = ()
    ) -> Self:
        """A certificate for ``key``; the subject is for people.

        ``names`` become its subjectAltName: whoever has no pins, and is given the certificate as what to believe (curl,
        say), looks for a host's name there.
        """
        subject_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject_name)
            .issuer_name(subject_name)
            .public_key(key.public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLIER)
            .not_valid_after(_NO_END)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if found := list(names):
            builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
        return cls(key, builder.sign(key.private_key, key.algorithm.hash))

    @property
    def pin(self) -> SpkiHash:
        """By what the other side knows the key."""
        return pin_of(self.key)


def pin_of(key: MemoryKey) -> SpkiHash:
    """By what a key is pinned."""
    return SpkiHash.of_spki(spki_der(key.public_key))
