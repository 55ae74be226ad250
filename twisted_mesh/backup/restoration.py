"""Bringing a backup back: what would be lost is said first, and what is replaced is kept.

All is prepared beside the state and decided there; then a plan is written, and from then on the same
files are put in place however often that is begun. A CA does not start while a plan is there.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from attrs import define, field

from pki.audit.log import Checkpoint
from pki.errors import PkiError
from pki.issuing.root_line import RootLine, fingerprint_of
from pki.keys import KeyReference
from pki.keys.pkcs8 import is_encrypted
from pki.svid.pin import Fingerprint
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.backup import credentials, record, vouching
from twisted_mesh.backup.archive import (
    DATABASE,
    REVOKED,
    ROOT,
    ROOT_CRL,
    ROOT_KEY,
    Archive,
    Manifest,
)
from twisted_mesh.backup.loss import Loss
from twisted_mesh.backup.placement import Placement, Plan
from twisted_mesh.backup.provenance import (
    NotProven,
    Provenance,
    demand_known_root,
    judge,
    log_key_bytes,
)
from twisted_mesh.backup.record import Lost, Summary
from twisted_mesh.backup.vouching import Vouched
from twisted_mesh.ca import revoked_authorities
from twisted_mesh.ca.issuing_files import read_certificate
from twisted_mesh.ca.revoked_authorities import RevokedAuthority
from twisted_mesh.state.directory import (
    StateDirectory,
    StateError,
    read_file,
    write_whole,
)
from twisted_mesh.stores.records import StoreError
from twisted_mesh.trust.log_witness import LogWitness

_PRESENT = "present.db"


@define(eq=False)
class Restoration:
    """One backup on its way back into one state directory, whose CA is stopped and stays so.

    :meth:`prepare`, then :meth:`perform`; :meth:`resume` after an interruption.
    """

    state: StateDirectory
    archive: Archive
    now: datetime
    fingerprint: Fingerprint | None = None
    """Of the root of the CA that is wanted back."""
    accept_unsigned: bool = False
    """Whether an archive will do that proves nothing of where it comes from."""
    provenance: Provenance | None = field(default=None, init=False)
    vouched: Vouched | None = field(default=None, init=False)
    """How the archive's record stands against its audit log."""
    elsewhere: Mapping[str, KeyReference] = field(factory=dict, init=False)
    """Keys that the archive only refers to, by the names of their files."""
    loss: Loss | None = field(default=None, init=False)
    _placement: Placement = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._placement = Placement(self.state)

    @property
    def aside(self) -> Path | None:
        """Where what was replaced is now."""
        return self._placement.aside

    @property
    def manifest(self) -> Manifest:
        """What the archive says that it holds."""
        return self.archive.manifest

    @property
    def _workshop(self) -> Path:
        return self.state.restoring

    def resume(self, *, only_look: bool = False) -> bool:
        """Finish what an earlier run has decided, if it has.

        ``only_look`` changes nothing. Raises :class:`StateError`, and :class:`NotProven` where ``fingerprint`` is of
        another root.
        """
        path = self._placement.plan_file
        if not path.exists():
            return False
        try:
            plan = msgspec.json.decode(read_file(path, "the plan"), type=Plan)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise StateError(f"{path} is damaged, and it says how a restore is to end") from None
        if plan.backup != self.manifest.sha256:
            raise StateError(
                f"another backup was being restored to {self.state.root} and is half in place: restore that one first"
            )
        if self.fingerprint is not None and self.fingerprint.digest.hex() != self.manifest.root:
            raise NotProven(
                f"{self.archive.path}, which is half in place in {self.state.root}, is of another root than "
                "--fingerprint names: finish that restore first, without it"
            )
        if not only_look:
            self._placement.carry_out(plan)
        return True

    def prepare(self, witnesses: Iterable[Path]) -> Loss:
        """Unpack, check and compare; what would be lost. Changes nothing but its own directory.

        ``witnesses`` are directories of what was seen of logs. Raises :class:`BadBackup`, :class:`NotProven`,
        :class:`StateError`, StoreError and :class:`credentials.DoNotFit`.
        """
        try:
            shutil.rmtree(self._workshop, ignore_errors=True)
            self._workshop.mkdir(mode=0o700)
        except OSError as error:
            raise StateError(
                f"{self._workshop} cannot be written ({error.strerror}): restore as the CA's user or as root"
            ) from None
        new = self._placement.new
        self.archive.read(new)
        files = {name: (new / name).read_bytes() for name in self._names()}
        self._demand_same_ca(new)
        self.provenance = self._proven(files)
        credentials.check(files)
        self.elsewhere = credentials.references_in(files)
        backup = new / DATABASE
        record.check(backup)
        record.bring_up(backup)
        record.remake(backup)
        directories = tuple(witnesses)
        self.vouched = vouching.vouch(
            backup,
            self._log_keys(directories, files, self.provenance),
            credentials.issuers_of(files),
            parse_rfc3339(self.manifest.created_at),
            is_authentic=self.provenance.is_signed,
        )
        lost, why_not = self._compared(backup)
        summary = record.summary(backup)
        is_unreadable = lost is None and (self.state.root / DATABASE).exists()
        is_unreadable = is_unreadable or self._revoked_here() is None
        self.loss = Loss(lost, why_not, _largest(directories, summary), summary, is_unreadable)
        return self.loss

    def perform(self, by: str) -> None:
        """Do it. Raises :class:`StateError` and StoreError; begun again, it goes on where it was."""
        if self.loss is None:
            raise AssertionError("what would be lost is looked at first")
        backup = self._placement.new / DATABASE
        restored = None
        lost = self.loss.lost
        if lost is not None:
            record.carry_over(backup, self._workshop / _PRESENT, deletions=lost.is_successor)
        if not (self.loss.is_none and self.loss.is_up_to_date):
            record.settle_tokens(backup, keep_live=self.loss.is_up_to_date)
        if not self.loss.is_none:
            restored = self.loss.told(self.manifest, by, self.now, record.rename_store(backup))
        record.close(backup)
        place = [member.name for member in self.manifest.members]
        # A root's CRL that is here is never older than one that was saved.
        kept = [
            name for name in place if ROOT_CRL.fullmatch(name) and (self.state.root / name).exists()
        ]
        place = [name for name in place if name not in kept]
        if self._carry_revoked_over() and REVOKED not in place:
            place.append(REVOKED)
        plan = Plan(
            backup=self.manifest.sha256,
            aside=f"replaced-{self.now:%Y%m%dT%H%M%SZ}",
            place=place,
            remove=[
                name
                for name in self._placement.present()
                if name not in place and not self._stays(name)
            ],
            restored=restored,
        )
        write_whole(self._placement.plan_file, msgspec.json.encode(plan), 0o600)
        self._placement.carry_out(plan)

    def _revoked_here(self) -> Sequence[RevokedAuthority] | None:
        """The CAs that are revoked here; None where what says so cannot be read."""
        path = self.state.root / REVOKED
        if not path.exists():
            return ()
        try:
            return revoked_authorities.parse(read_file(path, "the file"), path)
        except StateError:
            return None

    def _carry_revoked_over(self) -> bool:
        """Have what is put in place say what is revoked here besides: a stolen key stays so. Whether anything is."""
        new = self._placement.new / REVOKED
        saved = revoked_authorities.parse(read_file(new, "the file"), new) if new.exists() else ()
        merged = revoked_authorities.merged_rows(self._revoked_here() or (), saved)
        if merged:
            write_whole(new, revoked_authorities.written(merged), 0o644)
        return bool(merged)

    def _stays(self, name: str) -> bool:
        """Whether a file that the backup lacks stays: of a root that is in it.

        The root's key may be detached when a backup is made, and back later, and its CRL be made after it.
        """
        if ROOT_CRL.fullmatch(name):
            return True
        match = ROOT_KEY.fullmatch(name)
        if match is None:
            return False
        certificate = f"ca/{match[1]}.crt"
        present, saved = self.state.root / certificate, self._placement.new / certificate
        return present.exists() and saved.exists() and present.read_bytes() == saved.read_bytes()

    def abandon(self) -> None:
        """Leave no trace, unless it is decided."""
        if not (self._placement.plan_file).exists():
            shutil.rmtree(self._workshop, ignore_errors=True)

    def _names(self) -> list[str]:
        return [m.name for m in self.manifest.members if m.name != DATABASE]

    def _proven(self, files: Mapping[str, bytes]) -> Provenance:
        root = self.state.root_certificate
        # That it is one of those that are believed here was looked at.
        own = files[ROOT] if root.exists() else None
        demand_known_root(self.manifest, files[ROOT], self.fingerprint, own)
        is_known = self.fingerprint is not None or own is not None
        return judge(
            self.manifest,
            self.archive.signature,
            files,
            is_root_known=is_known,
            accept_unsigned=self.accept_unsigned,
        )

    def _log_keys(
        self, witnesses: Iterable[Path], files: Mapping[str, bytes], proven: Provenance
    ) -> list[bytes]:
        """Public keys of the CA's audit log that are known otherwise than by an archive that proves nothing."""
        if proven.log_key is not None:
            return [proven.log_key]
        found = []
        own = self.state.private / "audit.key"
        if own.exists() and not is_encrypted(data := read_file(own, "the key")):
            found.append(log_key_bytes(data))
        for witness in _witnesses(witnesses):
            # One machine may have seen the logs of several CAs: none but this one's will fit.
            if witness.verifier is not None:
                found.append(witness.verifier.public_bytes)
        return found

    def _demand_same_ca(self, new: Path) -> None:
        """Also where another root is served by now, as long as both are believed here."""
        root = self.state.root_certificate
        if not root.exists():
            return
        line, saved = (
            self._own_line(),
            fingerprint_of(credentials.root_of({ROOT: (new / ROOT).read_bytes()})),
        )
        for former in line.former:
            if former.fingerprint == saved:
                raise StateError(
                    f"the backup is from before its root was {former.how} here, at {rfc3339(former.at)}, and would "
                    "bring that back: use a later one"
                )
        if saved not in map(fingerprint_of, line.roots):
            raise StateError(
                f"{root} is another CA's than the backup's: restore into an empty --state-dir, or move that one away"
            )

    def _own_line(self) -> RootLine:
        """The roots that are here; the one that is served alone, where what says more cannot be read."""
        try:
            return credentials.line_of(
                {
                    name: read_file(self.state.root / name, "the file")
                    for name in self._placement.present()
                    if name.endswith((".crt", ".json"))
                }
            )
        except PkiError:
            return RootLine(read_certificate(self.state.root_certificate))

    def _compared(self, backup: Path) -> tuple[Lost | None, str]:
        """With the record that is here, of which a copy is made: it stays as it is."""
        database = self.state.ca / "mesh.db"
        if not database.exists():
            return None, f"{database} is not there"
        present = self._workshop / _PRESENT
        try:
            record.copy(database, present)
            record.bring_up(present)
            return record.compare(backup, present, self.now), ""
        except StoreError as error:
            present.unlink(missing_ok=True)
            return None, str(error)


def _witnesses(directories: Iterable[Path]) -> Iterator[LogWitness]:
    """What was seen of logs."""
    for directory in directories:
        for path in sorted(directory.glob("*.json")):
            witness = LogWitness(path)
            witness.recall()
            yield witness


def _largest(directories: Iterable[Path], backup: Summary) -> Checkpoint | None:
    """The largest log of that CA that was ever seen, if the backup does not have all of it."""
    ours = backup.checkpoint
    if ours is None:
        return None
    seen = [
        witness.seen
        for witness in _witnesses(directories)
        if witness.seen is not None and witness.seen.origin == ours.origin
    ]
    larger = [checkpoint for checkpoint in seen if checkpoint.size > backup.acts]
    return max(larger, key=lambda checkpoint: checkpoint.size, default=None)
