"""The file of ``--ct-logs``, with what stands beside it: read here, for whoever asks logs and whoever judges by them.

It is a list that only its owner, we or root can have written. Whoever may say besides which logs count has signed it
in ``FILE.sig``; his key is in a file, or in ``FILE.pub`` where its hash is known.
"""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pki.ct.document import LARGEST
from pki.ct.errors import BadLogList
from pki.ct.log_list import LogList, verify_signature
from pki.errors import HOSTILE_INPUT, PkiError
from pki.keys import PublicKey, is_certifiable, spki_der
from pki.svid.spki_pin import SpkiHash
from pki.validity import rfc3339
from twisted_mesh.state.directory import read_trusted

_LONGEST_SIGNATURE, _LONGEST_KEY = 16 * 1024, 64 * 1024
_HASH = "sha256/"


def beside(path: Path, ending: str) -> Path:
    """What belongs to the list at ``path``: ``sig`` or ``pub``."""
    return path.with_name(f"{path.name}.{ending}")


def list_text(path: Path, option: str) -> bytes:
    """What the list says. Raises :class:`~pki.errors.PkiError`."""
    return read_trusted(path, option, LARGEST)


def signature_text(path: Path, option: str) -> bytes:
    """Its signature. Raises :class:`~pki.errors.PkiError`."""
    return read_trusted(beside(path, "sig"), f"the signature of {option}", _LONGEST_SIGNATURE)


def key_text(said: str, path: Path, option: str) -> bytes:
    """Where the key is that ``said`` names, by a file or by its hash. Raises :class:`~pki.errors.PkiError`."""
    return read_trusted(_key_path(said, path), option, _LONGEST_KEY)


def key_in(text: bytes, said: str, path: Path, option: str) -> PublicKey:
    """The key in what :func:`key_text` has read: a public key or a certificate in PEM. Raises :class:`BadLogList`."""
    pin = _pin_in(said)
    key: PublicKeyTypes | None
    try:
        if b"-----BEGIN CERTIFICATE-----" in text:
            key = x509.load_pem_x509_certificate(text).public_key()
        else:
            key = load_pem_public_key(text)
    except HOSTILE_INPUT:
        key = None
    if key is None or not is_certifiable(key):
        raise BadLogList(
            f"{option} {said}: there is no public key and no certificate in PEM that can be used"
        )
    if pin is not None and SpkiHash.of_spki(spki_der(key)) != pin:
        raise BadLogList(f"the key in {beside(path, 'pub')} is not the one that {option} names")
    return key


def list_in(
    text: bytes, signature: bytes, key: PublicKey | None, before: LogList | None, what: str
) -> LogList:
    """The list in ``text``, which ``key`` has signed if there is one, and which is no older than ``before``.

    ``what`` is the option and the file, for sentences. Raises :class:`BadLogList`.
    """
    try:
        if key is not None:
            verify_signature(text, signature, key)
        found = LogList.parse(text)
    except PkiError as error:
        raise BadLogList(f"{what}: {error}") from None
    known = None if before is None else before.timestamp
    if known is not None and (found.timestamp is None or found.timestamp < known):
        raise BadLogList(
            f"{what} is older than what was read there before, which is of {rfc3339(known)}: an earlier list was "
            "put back"
        )
    return found


def _key_path(said: str, path: Path) -> Path:
    return Path(said) if _pin_in(said) is None else beside(path, "pub")


def _pin_in(said: str) -> SpkiHash | None:
    """The hash that ``said`` is; None where it is a file. Raises :class:`~pki.errors.PkiError` for one that is none."""
    return SpkiHash.parse(said) if said.startswith(_HASH) else None
