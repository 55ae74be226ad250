"""The document of the roots: which there are and how far their rotation is, with their certificates, signed.

An issuing CA of ours has signed it, so that whoever can write the file and has no key changes nothing.
"""

import base64
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pki.errors import ANY_ERROR, HOSTILE_INPUT, PkiError
from pki.issuing.authority import Authority
from pki.issuing.root_line import FormerRoot, HowItEnded, Phase, RootLine
from pki.keys import KeyAlgorithm, key_id, signature_over, verify
from pki.svid.x509svid import certificates_pem, load_certificates, uri_names
from pki.validity import parse_rfc3339, rfc3339_exactly
from twisted_mesh.ca.issuing_files import WrongState

_FORMAT = 1
_UNFIT: tuple[type[BaseException], ...] = (InvalidSignature, PkiError, *HOSTILE_INPUT)
#: Nothing else that an issuing CA signs begins so.
_HEAD = b"twisted-mesh roots 1\n"


class _Former(msgspec.Struct, forbid_unknown_fields=True):
    fingerprint: str
    key_id: str
    pin: str
    subject: str
    generation: int
    at: str
    how: str


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """What is signed."""

    format: int
    phase: str
    since: str
    sequence: int
    old: str
    new: str | None
    both: list[str]
    replaced: str
    announced: str
    former: list[_Former]


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """What is in the file."""

    said: _Said
    signer: str
    """:func:`pki.keys.key_id` of the issuing CA that has signed what is said."""
    signature: str


async def signed(line: RootLine, signer: Authority) -> bytes:
    """The document that says so. Raises :class:`pki.keys.SigningFailed`."""
    said = _said(line)
    signature = await signature_over(_statement(said), signer.key, signer.key.public_key)
    document = Document(said, signer.key_id, base64.b64encode(signature).decode())
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _statement(said: _Said) -> bytes:
    return _HEAD + msgspec.json.encode(said)


def read_line(data: bytes, path: Path, issuing: Iterable[x509.Certificate]) -> RootLine:
    """The line of roots in a document that one of these issuing CAs has signed.

    Raises :class:`WrongState`, which calls it ``path``.
    """
    document = read(data, path)
    if not is_signed(document, issuing):
        raise WrongState(f"{path} was not signed by an issuing CA that is beside it")
    return line_of(document, path)


def read(data: bytes, path: Path) -> Document:
    """Raises :class:`WrongState`, which calls it ``path``."""
    try:
        document = msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise WrongState(f"{path} is damaged: restore it from a backup") from None
    if document.said.format != _FORMAT:
        raise WrongState(
            f"{path} was written by a later version of this program: upgrade twisted-mesh"
        )
    return document


def is_signed(document: Document, issuing: Iterable[x509.Certificate]) -> bool:
    """Whether one of these issuing CAs has signed it."""
    signers = (one for one in issuing if key_id(one.public_key()) == document.signer)
    return any(_holds(document, signer) for signer in signers)


def _holds(document: Document, signer: x509.Certificate) -> bool:
    key = signer.public_key()
    algorithm = KeyAlgorithm.of(key)
    if algorithm is None:
        return False
    try:
        raw = base64.b64decode(document.signature, validate=True)
        verify(key, raw, _statement(document.said), algorithm.hash)  # type: ignore[arg-type]
    except _UNFIT:
        return False
    return True


def _said(line: RootLine) -> _Said:
    return _Said(
        _FORMAT,
        str(line.phase),
        "" if line.since is None else rfc3339_exactly(line.since),
        line.sequence,
        _pem(line.old),
        None if line.new is None else _pem(line.new),
        [_pem(certificate) for certificate in line.both],
        line.replaced,
        line.announced,
        [
            _Former(
                root.fingerprint,
                root.key_id,
                root.pin,
                root.subject,
                root.generation,
                rfc3339_exactly(root.at),
                str(root.how),
            )
            for root in line.former
        ],
    )


def line_of(document: Document, path: Path) -> RootLine:
    """The roots that it names. Raises :class:`WrongState`, which calls it ``path``."""
    said = document.said
    try:
        new = None if said.new is None else _certificate(said.new)
        phase = Phase(said.phase)
        if (phase is Phase.SETTLED) != (new is None) or said.sequence < 0:
            raise ValueError
        return RootLine(
            _certificate(said.old),
            new,
            phase,
            said.sequence,
            parse_rfc3339(said.since) if said.since else None,
            tuple(map(_certificate, said.both)),
            said.replaced,
            said.announced,
            tuple(
                FormerRoot(
                    root.fingerprint,
                    root.key_id,
                    root.pin,
                    root.subject,
                    root.generation,
                    parse_rfc3339(root.at),
                    HowItEnded(root.how),
                )
                for root in said.former
            ),
        )
    except ANY_ERROR:
        raise WrongState(f"{path} is damaged: restore it from a backup") from None


def _pem(certificate: x509.Certificate) -> str:
    return certificates_pem([certificate]).decode("ascii")


def _certificate(pem: str) -> x509.Certificate:
    (found,) = load_certificates(pem.encode("ascii"), "a certificate of the document")
    uri_names(found)
    return found
