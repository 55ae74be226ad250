"""What is shown against a log, so that anybody can verify it who knows the log's key, and need believe nobody.

Each kind is what a log has signed, twice, and hashes that lead from one to the other.
"""

import base64
from typing import Annotated, Self, TypeAlias

import msgspec
from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.ct import document
from pki.ct.entry import SignedEntry, merkle_leaf_of, of_precertificate, signed_entry_of
from pki.ct.errors import BadLog, EntryMissing, LogForked, LogRolledBack
from pki.ct.log_list import Log, LogList
from pki.ct.precertificate import is_poisoned
from pki.ct.receipt import verify_sct
from pki.ct.sct import SignedCertificateTimestamp, moment
from pki.ct.tree_head import TreeHead, open_note
from pki.errors import HOSTILE_INPUT, PkiError, printable
from pki.tlog.merkle import BadProof, leaf_hash, verify_consistency, verify_inclusion
from pki.tlog.note import Note, unbase64
from pki.validity import rfc3339

#: Hashes of one proof: a tree of 2**40 entries needs 80.
_MOST_HASHES = 128


class Unproven(PkiError):
    """What is given as evidence against a log proves nothing against it."""

    code = Code.BAD_PROOF


class _Missing(msgspec.Struct, tag="missing-entry", tag_field="kind", kw_only=True):
    certificate: str
    issuer: str
    sct: str
    checkpoint: str
    found: str = ""
    proof: Annotated[list[str], msgspec.Meta(max_length=_MOST_HASHES)] = []


class _Split(msgspec.Struct, tag="split-view", tag_field="kind", kw_only=True):
    first: str
    second: str
    prefix: str
    proof: Annotated[list[str], msgspec.Meta(max_length=_MOST_HASHES)] = []


class _Back(msgspec.Struct, tag="rolled-back", tag_field="kind", kw_only=True):
    first: str
    second: str


@frozen
class MissingEntry:
    """A receipt for a certificate, and a tree that does not have its entry where the receipt says.

    ``proof`` shows another leaf there; without one the tree is too short, long after the receipt.
    """

    certificate: bytes
    """The certificate or precertificate that the receipt is for, in DER."""
    issuer: bytes
    sct: SignedCertificateTimestamp
    checkpoint: str
    """The signed tree head, as a note."""
    found: bytes = b""
    """The leaf hash that is in its place."""
    proof: tuple[bytes, ...] = ()
    """From there to the root of the tree head."""

    @property
    def origin(self) -> str:
        """The log that it is against, by its own word."""
        return _origin(self.checkpoint)

    def verify(self, logs: LogList) -> BadLog:
        """What is proved, as an error to tell or raise. Raises :class:`PkiError`, mostly :class:`Unproven`."""
        log = _log(logs, self.checkpoint)
        entry = _entry(self.certificate, self.issuer)
        verify_sct(self.sct, entry, log.key)
        head = open_note(self.checkpoint, log)
        index = self.sct.leaf_index
        if index is None:
            raise Unproven("the receipt (SCT) does not say where its entry is")
        said = f"{log.description} has signed a receipt (SCT) at {rfc3339(self.sct.at)} for its entry {index}"
        signed = f"its tree of {head.size} entries, signed at {rfc3339(moment(head.timestamp))}"
        if index >= head.size:
            late = self.sct.timestamp + 1000 * log.mmd
            if self.found or self.proof or head.timestamp <= late:
                raise Unproven(
                    f"the tree of {head.size} entries was signed before entry {index} had to be in it"
                )
            return EntryMissing(f"{said}, and {signed}, does not reach there")
        promised = leaf_hash(merkle_leaf_of(entry, self.sct.timestamp, self.sct.extensions))
        if self.found == promised:
            raise Unproven(
                "the entry is there: the leaf that is shown is the one that was promised"
            )
        _inclusion(self.found, index, head, self.proof)
        return EntryMissing(f"{said}, and {signed}, has another entry there")

    def to_bytes(self) -> bytes:
        """The document, which :func:`parse_evidence` reads."""
        return document.write(
            _Missing(
                certificate=_b64(self.certificate),
                issuer=_b64(self.issuer),
                sct=_b64(self.sct.to_bytes()),
                checkpoint=self.checkpoint,
                found=_b64(self.found),
                proof=list(map(_b64, self.proof)),
            )
        )

    @classmethod
    def _read(cls, said: _Missing) -> Self:
        return cls(
            unbase64(said.certificate),
            unbase64(said.issuer),
            SignedCertificateTimestamp.parse(unbase64(said.sct)),
            said.checkpoint,
            unbase64(said.found),
            _hashes(said.proof),
        )


@frozen
class SplitView:
    """Two tree heads, of which the larger does not go on from the smaller.

    ``prefix`` is the root that the larger tree has over its first entries, as many as the smaller has, and ``proof``
    is the consistency proof from there: whoever has the larger tree can make both.
    """

    first: str
    """The smaller one, as a note; either of two of one size."""
    second: str
    prefix: bytes
    proof: tuple[bytes, ...] = ()

    @property
    def origin(self) -> str:
        """The log that it is against, by its own word."""
        return _origin(self.first)

    def verify(self, logs: LogList) -> BadLog:
        """As :meth:`MissingEntry.verify`."""
        log = _log(logs, self.first)
        first, second = open_note(self.first, log), open_note(self.second, log)
        if not 0 < first.size <= second.size:
            raise Unproven("the second tree is to be the larger one, and neither may be empty")
        if self.prefix == first.root:
            raise Unproven("the two trees agree: nothing is shown against the log")
        try:
            verify_consistency(first.size, second.size, self.prefix, second.root, self.proof)
        except BadProof as error:
            raise Unproven(
                f"what the second tree has over its first {first.size} entries is not shown: {error}"
            ) from None
        return LogForked(
            f"{log.description} has signed two trees: that of {second.size} entries, at {_when(second)}, has other "
            f"entries among its first {first.size} than that of {first.size} had, at {_when(first)}"
        )

    def to_bytes(self) -> bytes:
        """The document, which :func:`parse_evidence` reads."""
        proof = list(map(_b64, self.proof))
        return document.write(
            _Split(first=self.first, second=self.second, prefix=_b64(self.prefix), proof=proof)
        )

    @classmethod
    def _read(cls, said: _Split) -> Self:
        return cls(said.first, said.second, unbase64(said.prefix), _hashes(said.proof))


@frozen
class RolledBack:
    """Two tree heads, of which the later has fewer entries."""

    first: str
    second: str
    """The later one, as a note."""

    @property
    def origin(self) -> str:
        """The log that it is against, by its own word."""
        return _origin(self.first)

    def verify(self, logs: LogList) -> BadLog:
        """As :meth:`MissingEntry.verify`."""
        log = _log(logs, self.first)
        first, second = open_note(self.first, log), open_note(self.second, log)
        if second.timestamp <= first.timestamp or second.size >= first.size:
            raise Unproven("the later of the two trees is not the smaller one")
        return LogRolledBack(
            f"{log.description} has signed a tree of {first.size} entries at {_when(first)}, and one of {second.size} "
            f"after that, at {_when(second)}"
        )

    def to_bytes(self) -> bytes:
        """The document, which :func:`parse_evidence` reads."""
        return document.write(_Back(first=self.first, second=self.second))


Evidence: TypeAlias = MissingEntry | SplitView | RolledBack


def parse_evidence(data: bytes) -> Evidence:
    """What ``to_bytes`` has written. Raises :class:`Unproven`; whether it proves anything, ``verify`` says."""
    try:
        found: _Missing | _Split | _Back = document.read(data, _Missing | _Split | _Back)  # type: ignore[arg-type]
        match found:
            case _Missing():
                return MissingEntry._read(found)
            case _Split():
                return SplitView._read(found)
            case _Back():
                return RolledBack(found.first, found.second)
    except (PkiError, ValueError) as error:
        raise Unproven(f"this is no evidence against a log: {printable(str(error), 200)}") from None


def _log(logs: LogList, note: str) -> Log:
    origin = _origin(note)
    log = logs.log_at(origin)
    if log is None:
        raise Unproven(
            f"it is about the log {printable(origin, 80)}, which is not in the list of logs"
        )
    return log


def _origin(note: str) -> str:
    return Note.parse(note).text.partition("\n")[0]


def _entry(certificate: bytes, issuer: bytes) -> SignedEntry:
    """What the receipts of a certificate or precertificate are for."""
    try:
        cert, above = map(x509.load_der_x509_certificate, (certificate, issuer))
        poisoned = is_poisoned(cert.tbs_certificate_bytes)
    except HOSTILE_INPUT:
        raise Unproven("the certificate, or that of its issuer, cannot be read") from None
    return of_precertificate(cert, above) if poisoned else signed_entry_of(cert, above)


def _inclusion(found: bytes, index: int, head: TreeHead, proof: tuple[bytes, ...]) -> None:
    try:
        verify_inclusion(found, index, head.size, proof, head.root)
    except BadProof as error:
        raise Unproven(f"what stands at entry {index} is not shown: {error}") from None


def _hashes(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(map(unbase64, texts))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _when(head: TreeHead) -> str:
    return rfc3339(moment(head.timestamp))
