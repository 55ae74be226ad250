"""What an endpoint keeps of whom it has believed: so that it starts again after the CA's root was replaced.

It was told of one root, by a fingerprint or a file, and has followed the CA's word since. What it was told stays in
its options for ever; so it is remembered that this is what it began with, and what it has come to believe by it. A
root that is known to be distrusted opens nothing any more, whatever the options say.
"""

from collections.abc import Iterable

import msgspec
from attrs import frozen
from cryptography import x509
from msgspec import Struct

from pki.errors import Malformed, PkiError
from pki.keys import key_id
from pki.svid.bundle import TrustBundle
from pki.svid.pin import Fingerprint
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.x509svid import certificates_pem, load_certificates
from twisted_mesh.api.messages import RevocationRow
from twisted_mesh.api.revocation_rows import revocation_of, row_of

#: So many fingerprints and former roots are remembered, the latest, and so many revocations of CA certificates.
MOST_MET, MOST_FORMER, MOST_REVOKED = 16, 8, 10_000


class _Document(Struct, frozen=True):
    met: list[str]
    former: list[str]
    revoked: list[RevocationRow]


@frozen
class SavedTrust:
    """``SavedTrust.parse(x.to_json()) == x``."""

    met: tuple[Fingerprint, ...] = ()
    """Of the roots by which this CA was found, in options or by its own word; the earliest first."""
    former: tuple[x509.Certificate, ...] = ()
    """Roots that were believed, and are no more; the earliest first."""
    revoked: tuple[Revocation, ...] = ()
    """CA certificates, roots too."""

    @classmethod
    def parse(cls, data: bytes, what: str) -> "SavedTrust":
        """Raises :class:`Malformed`, which names ``what``."""
        try:
            read = msgspec.json.decode(data, type=_Document)
            if max(len(read.met), len(read.former)) > MOST_MET or len(read.revoked) > MOST_REVOKED:
                raise Malformed("there is too much in it")
            return cls(
                tuple(map(Fingerprint.parse, read.met)),
                tuple(cert for pem in read.former for cert in load_certificates(pem.encode())),
                tuple(map(revocation_of, read.revoked)),
            )
        except (msgspec.DecodeError, RecursionError):
            raise Malformed(f"{what} is not what was kept there") from None
        except PkiError as error:
            raise Malformed(f"{what} is not what was kept there: {error}") from None

    def to_json(self) -> bytes:
        """As a file."""
        return msgspec.json.encode(
            _Document(
                [str(fingerprint) for fingerprint in self.met],
                [certificates_pem([root]).decode() for root in self.former],
                [row_of(revoked) for revoked in self.revoked],
            )
        )

    def leading_from(self, given: Iterable[Fingerprint]) -> "SavedTrust":
        """With what the options of this life name."""
        met = [fingerprint for fingerprint in self.met if fingerprint not in set(given)]
        return SavedTrust(tuple([*met, *given][-MOST_MET:]), self.former, self.revoked)

    def followed_by(
        self, before: TrustBundle, bundle: TrustBundle, revocations: RevocationSet
    ) -> "SavedTrust":
        """Once ``bundle`` is believed in place of ``before``, and all that is in ``revocations`` revoked."""
        gone = [root for root in before.roots if root not in bundle.roots]
        former = [root for root in self.former if root not in (*gone, *bundle.roots)]
        former = [*former, *gone][-MOST_FORMER:]
        found = {(one.issuer, one.serial): one for one in self.revoked}
        for root in (*former, *bundle.roots):
            for one in revocations.of(key_id(root.public_key())):
                found[one.issuer, one.serial] = one
        followed = SavedTrust(self.met, tuple(former), tuple(found.values())[-MOST_REVOKED:])
        return followed.leading_from([Fingerprint.of(root) for root in bundle.roots])

    def distrusts(self, root: x509.Certificate) -> bool:
        """Whether that root is revoked."""
        issuer, serial = key_id(root.public_key()), root.serial_number
        return any((one.issuer, one.serial) == (issuer, serial) for one in self.revoked)
