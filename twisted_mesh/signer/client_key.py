"""A CA's own key towards its signers: made once, kept beside its other keys, and known to each signer by its pin."""

from collections.abc import Collection
from datetime import datetime

from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.tls.pinned_client import PinnedTls
from twisted_mesh.tls.self_signed import SelfSigned

#: In the directory of the CA's keys.
CLIENT_KEY = "signer-client.key"
_ALGORITHM = KeyAlgorithm.EC_P256
_RULE = "signer:https pins"
_REMEDY = (
    "compare with what the signer prints when it starts: where it has another key now, put that in pin=; else "
    "somebody else answers"
)


def client_key(files: KeyFiles) -> MemoryKey:
    """It, made if there is none yet. Raises :class:`~twisted_mesh.state.directory.StateError`."""
    if files.exists(CLIENT_KEY):
        return files.load(CLIENT_KEY, MemoryKey.from_pem)
    made = MemoryKey.generate(_ALGORITHM)
    files.write(CLIENT_KEY, made)
    return made


def client_tls(
    files: KeyFiles, pins: Collection[SpkiHash], now: datetime, *, requires_pq: bool
) -> PinnedTls:
    """What a CA whose keys are in ``files`` shows to a signer that has one of these keys."""
    key = client_key(files)
    # The certificate is only what TLS carries the key in: made anew at each start, it is one file less to lose.
    return signer_tls(SelfSigned.of(key, "mesh-ca", now), pins, requires_pq=requires_pq)


def signer_tls(own: SelfSigned, pins: Collection[SpkiHash], *, requires_pq: bool) -> PinnedTls:
    """TLS to a signer that has one of these keys."""
    return PinnedTls(own, pins, _RULE, _REMEDY, requires_pq)
