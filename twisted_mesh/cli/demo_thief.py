"""What whoever has stolen the issuing key makes of it, for ``make demo``: a certificate like another, past all logs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pki.keys import KeyAlgorithm, MemoryKey

_LIFE = timedelta(hours=1)
#: What is of one certificate alone: who else signs another has none of these receipts.
_OWN = (x509.SubjectKeyIdentifier, x509.PrecertificateSignedCertificateTimestamps)


def mint(ca: Path, like: Path, directory: Path) -> None:
    """Write ``svid.pem`` and ``svid_key.pem``: the names and purposes of ``like``, signed by the key of the CA there.

    Nothing is wrong with it but that no log has seen it.
    """
    issuing = MemoryKey.from_pem((ca / "private" / "issuing.key").read_bytes()).private_key
    chain = x509.load_pem_x509_certificates(like.read_bytes())
    own, now = MemoryKey.generate(KeyAlgorithm.EC_P256), datetime.now(UTC)
    draft = (
        x509.CertificateBuilder()
        .subject_name(chain[0].subject)
        .issuer_name(chain[1].subject)
        .public_key(own.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key), critical=False)
    )
    for found in chain[0].extensions:
        if not isinstance(found.value, _OWN):
            draft = draft.add_extension(found.value, critical=found.critical)
    certificates = [draft.sign(issuing, SHA256()), *chain[1:]]
    directory.mkdir()
    written = b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
    (directory / "svid.pem").write_bytes(written)
    secret = directory / "svid_key.pem"
    secret.touch(mode=0o600)
    secret.write_bytes(own.to_pem())
