"""A restore that is decided: its files are put in place, however often that is begun."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field

from twisted_mesh.backup.archive import DATABASE, NAME
from twisted_mesh.state.directory import StateDirectory, StateError, sync_directory, write_whole

_LEFTOVERS = ("ca/mesh.db-wal", "ca/mesh.db-shm")


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be done, decided once."""

    backup: str
    """The digest of the archive's manifest."""
    aside: str
    """Where what is replaced goes."""
    place: list[str]
    remove: list[str]
    restored: dict[str, Any] | None
    """What the CA is to read at its next start; None where its log goes on as if nothing had been."""


@define(eq=False)
class Placement:
    """Puts what is to be restored in the place of what is in a state directory, which is set aside.

    Nothing is decided here, and everything can be done twice.
    """

    state: StateDirectory
    aside: Path | None = field(default=None, init=False)
    """Where what was replaced is now."""

    @property
    def _workshop(self) -> Path:
        return self.state.restoring

    @property
    def new(self) -> Path:
        """Where the files are that are to be put in place."""
        return self._workshop / "new"

    @property
    def plan_file(self) -> Path:
        """Where it is written what was decided."""
        return self._workshop / "plan.json"

    def present(self) -> list[str]:
        """What is here and belongs to a CA: certificates, keys, the record with what SQLite keeps beside it."""
        found = [
            str(path.relative_to(self.state.root))
            for directory in (self.state.ca, self.state.private)
            for path in directory.glob("*")
            if path.is_file()
        ]
        return sorted(name for name in found if NAME.fullmatch(name) or name in _LEFTOVERS)

    def carry_out(self, plan: Plan) -> None:
        """All of it, or what is left of it. Raises :class:`StateError`; begun again, it goes on where it was."""
        self.aside = self.state.ca / plan.aside
        try:
            self._set_aside(plan, self.aside)
            if plan.restored is not None:
                data = msgspec.json.format(msgspec.json.encode(plan.restored), indent=2)
                write_whole(self.state.restored, data + b"\n", 0o600)
            self._put_in_place(plan)
            for name in plan.remove:
                (self.state.root / name).unlink(missing_ok=True)
            for directory in (self.state.ca, self.state.private):
                sync_directory(directory)
            self.plan_file.unlink()
            sync_directory(self._workshop)
            shutil.rmtree(self._workshop)
        except OSError as error:
            raise StateError(
                f"the restore to {self.state.root} is half done ({error.strerror}): mend that, and run it again"
            ) from None

    def _set_aside(self, plan: Plan, aside: Path) -> None:
        """A second name for all that is replaced: nothing is without a name at any moment."""
        done = self._workshop / "set-aside"
        if done.exists():
            return
        for name in self.present():
            if name not in (*plan.place, *plan.remove):
                continue
            kept = aside / Path(name).relative_to("ca")
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not kept.exists():
                _name_again(self.state.root / name, kept)
                sync_directory(kept.parent)
        sync_directory(self.state.ca)
        write_whole(done, b"", 0o600)

    def _put_in_place(self, plan: Plan) -> None:
        new = self.new
        if (new / DATABASE).exists():
            # Never a new record beside the old one's log: SQLite would read the two together.
            for name in _LEFTOVERS:
                (self.state.root / name).unlink(missing_ok=True)
            sync_directory(self.state.ca)
        for name in plan.place:
            with suppress(FileNotFoundError):  # moved by an earlier run
                (new / name).chmod(0o644 if name.endswith((".crt", ".crl", ".json")) else 0o600)
                (new / name).replace(self.state.root / name)


def _name_again(path: Path, second: Path) -> None:
    try:
        os.link(path, second)
    except OSError:  # a file system without links, or with few of them
        write_whole(second, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
