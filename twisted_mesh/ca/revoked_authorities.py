"""CA certificates of ours that are revoked: issuing CAs, and roots that are distrusted. Kept for good in one file.

They are in no row of the record: what is there may go back to an earlier day by a restore, and a stolen key must
not come back with it. The file is replaced whole; that is the moment at which a certificate is revoked.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

import msgspec
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.errors import PkiError
from pki.issuing.profile import generation_of
from pki.keys import key_id, spki_pin
from pki.serial import parse_serial, serial_hex
from pki.svid.path import issued_by
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import certificates_pem, load_certificates, subject_of
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.state.directory import StateError, read_file, write_whole

NAME = "revoked-authorities.json"
_FORMAT = 1
#: Of what a document tells of who has revoked something.
_LONGEST_BY = 400


@frozen(eq=False, repr=False)
class RevokedAuthority:
    """One certificate of a CA of ours that nobody is to rely on any more."""

    certificate: x509.Certificate
    revocation: Revocation
    """Its issuer is the root's :func:`pki.keys.key_id`; of a root, its own."""
    by: str
    """Who has revoked it, as the audit log has it."""

    @classmethod
    def of(
        cls,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        at: datetime,
        reason: Reason,
        by: str,
    ) -> "RevokedAuthority":
        """``certificate``, which ``issuer`` has signed, revoked ``at`` a time of whole seconds."""
        revocation = Revocation(
            key_id(issuer.public_key()),
            certificate.serial_number,
            at.replace(microsecond=0),
            reason,
            certificate.not_valid_after_utc,
        )
        return cls(certificate, revocation, by[:_LONGEST_BY])

    @cached_property
    def key_id(self) -> str:
        """Of its own key: how what it has issued names it."""
        return key_id(self.certificate.public_key())

    @property
    def is_root(self) -> bool:
        """Whether it is a root, which is distrusted by that."""
        return self.revocation.issuer == self.key_id

    @property
    def generation(self) -> int:
        """As its subject says it."""
        return generation_of(self.certificate.subject)

    @property
    def name(self) -> str:
        """Its subject, for people."""
        return subject_of(self.certificate)

    @cached_property
    def fingerprint(self) -> bytes:
        """The SHA-256 of the certificate."""
        return self.certificate.fingerprint(hashes.SHA256())

    @cached_property
    def pin(self) -> str:
        """Of its key: ``sha256/BASE64``."""
        return spki_pin(self.certificate.public_key())


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    certificate: str
    issuer: str
    serial: str
    revoked_at: str
    reason: str
    by: str


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    revoked: list[_Row]


@define(eq=False, repr=False)
class RevokedAuthorities:
    """The file of them. What it raises is :class:`StateError`, and names the file."""

    path: Path
    rows: tuple[RevokedAuthority, ...] = field(default=(), init=False)
    """In the order in which they were revoked."""

    def load(self) -> tuple[RevokedAuthority, ...]:
        """Read them. A file that is damaged ends the start: what it says cannot be guessed at."""
        self.rows = parse(read_file(self.path, "the file"), self.path) if self.path.exists() else ()
        return self.rows

    def add(self, rows: Iterable[RevokedAuthority]) -> tuple[RevokedAuthority, ...]:
        """From here on they are revoked; all there are. What is revoked already stays as it was."""
        merged = merged_rows(self.rows, rows)
        if len(merged) != len(self.rows):
            write_whole(self.path, written(merged), 0o644)
            self.rows = merged
        return self.rows


def merged_rows(
    rows: Sequence[RevokedAuthority], others: Iterable[RevokedAuthority]
) -> tuple[RevokedAuthority, ...]:
    """Both, each certificate once, as it was first revoked."""
    found = {row.fingerprint: row for row in rows}
    for other in others:
        found.setdefault(other.fingerprint, other)
    return tuple(found.values())


def written(rows: Iterable[RevokedAuthority]) -> bytes:
    """As they are in the file; :func:`parse` is the way back."""
    document = _Document(_FORMAT, [_written(row) for row in rows])
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def parse(data: bytes, path: Path) -> tuple[RevokedAuthority, ...]:
    """What :func:`written` gave. Raises :class:`StateError`, which names ``path``."""
    try:
        document = msgspec.json.decode(data, type=_Document)
        if document.format != _FORMAT:
            raise StateError(
                f"{path} was written by a later version of this program: upgrade twisted-mesh"
            )
        return merged_rows((), [_read(row) for row in document.revoked])
    except StateError:
        raise
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError, PkiError):
        raise StateError(
            f"{path} is damaged, and it says which CA certificates nobody is to rely on: restore it from a backup "
            "(mesh-ctl backup restore)"
        ) from None


def _written(row: RevokedAuthority) -> _Row:
    return _Row(
        certificates_pem([row.certificate]).decode("ascii"),
        row.revocation.issuer,
        serial_hex(row.revocation.serial),
        rfc3339(row.revocation.revoked_at),
        str(row.revocation.reason),
        row.by,
    )


def _read(row: _Row) -> RevokedAuthority:
    """Raises ValueError and :class:`PkiError`."""
    (certificate,) = load_certificates(row.certificate.encode(), "a revoked CA")
    if parse_serial(row.serial) != certificate.serial_number:
        raise ValueError("the serial is of another certificate")
    if len(row.issuer) != 64 or not set(row.issuer) <= set("0123456789abcdef"):
        raise ValueError("an issuer is named by its key id")
    revocation = Revocation(
        row.issuer,
        certificate.serial_number,
        parse_rfc3339(row.revoked_at),
        Reason(row.reason),
        certificate.not_valid_after_utc,
    )
    read = RevokedAuthority(certificate, revocation, row.by[:_LONGEST_BY])
    _refuse_misnamed(read)
    return read


def _refuse_misnamed(row: RevokedAuthority) -> None:
    """A root's revocation names its own key, and that key has signed it; another's names another key."""
    if issued_by(row.certificate, row.certificate) != row.is_root:
        raise ValueError("a certificate is revoked by whoever has signed it")
