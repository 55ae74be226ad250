"""By what logs know the CA: a key of its own, since its certificate cannot have SCTs before a log has let it in."""

from datetime import datetime
from pathlib import Path

from cryptography import x509

from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import TrustDomain
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.state.directory import write_whole
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.tls.self_signed import SelfSigned

#: In the directory of the CA's keys.
SUBMITTER_KEY = "ct-submitter.key"
#: In the CA's directory: its pin, for a log in the same state directory.
SUBMITTER_PIN = "ct-submitter.pin"
_ALGORITHM = KeyAlgorithm.EC_P256


def submitter(files: KeyFiles, trust_domain: TrustDomain, now: datetime) -> SelfSigned:
    """What the CA shows at logs' doors; the key is made if there is none yet.

    Raises :class:`~twisted_mesh.state.directory.StateError`.
    """
    if files.exists(SUBMITTER_KEY):
        key = files.load(SUBMITTER_KEY, MemoryKey.from_pem)
    else:
        key = MemoryKey.generate(_ALGORITHM)
        files.write(SUBMITTER_KEY, key)
    own_id = x509.UniformResourceIdentifier(str(trust_domain.member("mesh", "ca")))
    return SelfSigned.of(key, "mesh-ca", now, [own_id])


def publish_pin(directory: Path, pin: SpkiHash) -> None:
    """Say in a file which key that is. Raises :class:`~twisted_mesh.state.directory.StateError`."""
    write_whole(directory / SUBMITTER_PIN, f"{pin}\n".encode(), 0o644)
