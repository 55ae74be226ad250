"""What an archive proves of where it comes from: its manifest is signed by an issuing CA below a root that we know.

A key that lies inside of the archive proves nothing by itself. It is the root that has to be known otherwise: by its
fingerprint, or because it is the root of the state directory that is restored.
"""

import base64
from collections.abc import Mapping
from functools import partial

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pki.audit.log import LogKey, LogSigner, StoredLogKey, Verifier
from pki.codes import Code
from pki.errors import HOSTILE_INPUT, PkiError, printable
from pki.issuing.root_line import RootLine
from pki.keys import KeyAlgorithm, KeyReference, MemoryKey, is_reference
from pki.keys.algorithm import verify, weaknesses
from pki.svid.certificate import issuer_problems
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import extension, load_certificates, validity_of
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.backup import credentials
from twisted_mesh.backup.archive import ISSUING, ROOT, Manifest, Signature
from twisted_mesh.ca.saved_state import statement
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.key_files import KeyFiles

#: What a forged certificate or signature raises. (binascii.Error is a ValueError.)
_DAMAGED: tuple[type[BaseException], ...] = (PkiError, InvalidSignature, *HOSTILE_INPUT)


class NotProven(PkiError):
    """The archive does not prove that it comes from the CA that it is said to be of."""

    code = Code.UNPROVEN_BACKUP


@frozen
class Provenance:
    """What is known of where an archive comes from."""

    is_signed: bool
    log_key: bytes | None = None
    """The public key of the CA's audit log, by the signature; its raw bytes."""


def demand_known_root(
    manifest: Manifest, root: bytes, fingerprint: Fingerprint | None, own: bytes | None
) -> Fingerprint:
    """The archive's root, which must be the one that is named, and the one that is here, where there is one.

    ``root`` and ``own`` are files in PEM. Raises :class:`NotProven`.
    """
    found = Fingerprint.of(_certificate(root, ROOT))
    if manifest.root != found.digest.hex():
        raise NotProven(f"its manifest is of another root than its {ROOT}: use another backup")
    if fingerprint is not None and found != fingerprint:
        raise NotProven(
            f"it is of the CA whose root has the fingerprint {found}, and --fingerprint names {fingerprint}: use a "
            "backup of the CA that you want back"
        )
    if own is not None and Fingerprint.of(_certificate(own, "the root that is here")) != found:
        raise NotProven(
            f"it is of the CA whose root has the fingerprint {found}, and another CA's root is here"
        )
    return found


def judge(
    manifest: Manifest,
    signature: Signature | None,
    files: Mapping[str, bytes],
    *,
    is_root_known: bool,
    accept_unsigned: bool = False,
) -> Provenance:
    """Hold the signature against the archive's own chain, whose root :func:`demand_known_root` has looked at.

    Raises :class:`NotProven`. A signature that does not hold is refused whatever is accepted.
    """
    if signature is None:
        if not accept_unsigned:
            raise NotProven(
                "it is not signed, so that anybody may have written it: use one that is; if you know where this file "
                "has been since it was made, add --accept-unsigned"
            )
        return Provenance(is_signed=False)
    issuing, root = _certificate(files[ISSUING], ISSUING), _certificate(files[ROOT], ROOT)
    _demand_issuer(manifest, issuing, root, credentials.between_of(files))
    key = issuing.public_key()
    algorithm = KeyAlgorithm.of(key)
    try:
        raw = base64.b64decode(signature.signature, validate=True)
        data = statement(manifest.digest, signature.log_key)
        if algorithm is None or weaknesses(key):
            raise InvalidSignature
        verify(key, raw, data, algorithm.hash)  # type: ignore[arg-type]
        log_key = Verifier.parse(signature.log_key).public_bytes if signature.log_key else None
    except _DAMAGED:
        raise NotProven(
            "its signature does not hold: it, or its manifest, was changed; use another backup"
        ) from None
    if not is_root_known:
        raise NotProven(
            f"it is signed by the CA whose root has the fingerprint {Fingerprint.of(root)}, and nothing here says that "
            "this is your CA: compare that with what you know of it, and add --fingerprint sha256:…"
        )
    return Provenance(is_signed=True, log_key=log_key)


def sign_here(keys: KeyFiles, log_key_name: str, sha256: str) -> Signature:
    """Sign with the issuing CA's key as it lies on the disk, which the passphrase of ``keys`` opens.

    Raises StateError where it does not.
    """
    key = keys.load("issuing.key", MemoryKey.from_pem)
    log_key = ""
    if keys.exists("audit.key") and log_key_name:
        log_key = str(keys.load("audit.key", partial(_log_key, log_key_name)).verifier)
    data = statement(sha256, log_key)
    raw = key.algorithm.kind.sign(key.private_key, data)
    return Signature(log_key, base64.b64encode(raw).decode())


def log_key_bytes(data: bytes) -> bytes:
    """The public bytes of the log's key that a file holds, or refers to. Raises :class:`pki.keys.UnusableKey`."""
    return _log_key("log", data, None).verifier.public_bytes


def _log_key(name: str, pem: bytes, passphrase: bytes | None) -> LogSigner:
    if is_reference(pem):
        return StoredLogKey(name, StoredKey(KeyReference.parse(pem), _signs_not))
    return LogKey.from_pem(name, pem, passphrase)


async def _signs_not(reference: KeyReference, data: bytes) -> bytes:
    raise StateError(f"the key {reference.uri} is asked by the running CA alone")


def _demand_issuer(
    manifest: Manifest,
    issuing: x509.Certificate,
    root: x509.Certificate,
    between: tuple[x509.Certificate, ...],
) -> None:
    try:
        at = parse_rfc3339(manifest.created_at)
        path = RootLine(root, between=between).path_of(issuing)
        # Of somebody else's root every leaf is a certificate: only its CAs may stand in between.
        if not path or any(issuer_problems(cert, below) for below, cert in enumerate(path[1:], 1)):
            raise InvalidSignature
        constraints = extension(issuing, x509.BasicConstraints)
        usage = extension(issuing, x509.KeyUsage)
        is_ca = constraints is not None and constraints.ca
        signs = usage is not None and usage.key_cert_sign
        dates = [validity_of(certificate) for certificate in path]
    except _DAMAGED:
        raise NotProven(f"its {ISSUING} was not issued by its {ROOT}: use another backup") from None
    if not (is_ca and signs):
        raise NotProven(f"its {ISSUING} is not that of a CA: use another backup")
    for validity in dates:
        if not validity.not_before <= at <= validity.not_after:
            raise NotProven(
                f"its CA was not valid at {rfc3339(at)}, when it says that it was made: use another backup"
            )


def _certificate(pem: bytes, name: str) -> x509.Certificate:
    try:
        found, *more = load_certificates(pem, name)
    except PkiError as error:
        raise NotProven(f"its {name} cannot be read ({printable(str(error))})") from None
    if more:
        raise NotProven(f"its {name} holds more than one certificate")
    return found
