"""A transparency log in memory, and certificates with its receipts in them."""

from collections.abc import Iterable
from datetime import UTC, datetime

from attrs import define, evolve, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import SignedEntry, signed_entry_of
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList
from pki.ct.precertificate import with_scts, without_scts
from pki.ct.receipt import sign_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, milliseconds
from pki.der import SEQUENCE, canonical_elements, element
from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm, MemoryKey, signature_over
from pki.svid.x509svid import X509Svid
from twisted_mesh.testing.at_once import at_once

_BIT_STRING = 0x03


@define(eq=False)
class MemoryLog:
    """Gives receipts for whatever it is shown, as a log whose CA is known to it does, and remembers what for."""

    name: str = "log"
    key: MemoryKey = field(factory=lambda: MemoryKey.generate(KeyAlgorithm.EC_P256))
    entries: list[SignedEntry] = field(factory=list, init=False)
    """What it has given receipts for, each at its index."""

    @property
    def log(self) -> Log:
        """As a list of logs has it."""
        url = f"https://{self.name}.mesh.test/ct"
        return Log(self.name, LogKey.of(self.key.public_key), url, url)

    def receipt(
        self, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime
    ) -> SignedCertificateTimestamp:
        """Of ``certificate`` as it is without receipts, by the log's clock ``at`` a time."""
        entry = signed_entry_of(certificate, issuer)
        self.entries.append(entry)
        index = len(self.entries) - 1
        return at_once(sign_sct(entry, milliseconds(at), index, self.key))


def list_of(logs: Iterable[MemoryLog], at: datetime | None = None) -> LogList:
    """The list in which these are, made ``at`` a time: what the file of ``--ct-logs`` holds, by its ``to_bytes``."""
    made = (at or datetime.now(UTC)).replace(microsecond=0)
    return LogList(tuple(log.log for log in logs), made)


def with_receipts(
    svid: X509Svid, issuer: Authority, scts: Iterable[SignedCertificateTimestamp]
) -> X509Svid:
    """The same identity, its certificate signed anew by ``issuer`` with these receipts in it, good or bad; or none."""
    found = tuple(scts)
    bare = without_scts(svid.leaf.tbs_certificate_bytes)
    tbs = with_scts(bare, list_bytes(found)) if found else bare
    leaf = at_once(signed_anew(svid.leaf, tbs, issuer))
    return evolve(svid, leaf=leaf)


async def signed_anew(
    certificate: x509.Certificate, tbs: bytes, issuer: Authority
) -> x509.Certificate:
    """``certificate`` with another TBSCertificate, signed by the key that ``issuer`` has."""
    (whole,) = canonical_elements(certificate.public_bytes(Encoding.DER))
    _, algorithm, _ = canonical_elements(whole.content)
    signature = await signature_over(tbs, issuer.key, issuer.key.public_key)
    signed = tbs + algorithm.whole + element(_BIT_STRING, b"\0" + signature)
    return x509.load_der_x509_certificate(element(SEQUENCE, signed))
