"""Which numbers of CRLs were seen, so that no older list passes for the current one, also after a restart."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from attrs import define, field

from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError, write_whole
from twisted_mesh.state.memory import Memory
from twisted_mesh.state.private import make_private_in_state, read_private, refuse_open

_log = logger("crl")


@define(eq=False, repr=False)
class SeenCrlNumbers:
    """Highest numbers, by the source that a list came from and by its issuer."""

    path: Path | None
    """None: remembered in memory only."""
    _seen: dict[str, dict[str, str]] = field(factory=dict, init=False)
    """In hex: a number has up to 20 bytes, and JSON readers take no such integers."""
    memory: Memory = field(init=False)
    """Whether the file can be written."""

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "crls",
            self.path,
            "Numbers of CRLs are kept in memory only",
            event="crl-memory-not-kept",
            again=self._write,
            log=_log,
        )

    def recall(self) -> None:
        """Read what was written. A file that cannot be used is told, and nothing was seen then."""
        if self.path is None:
            return
        try:
            if not os.path.lexists(self.path):
                return
            refuse_open(self.path.parent)
            found = msgspec.json.decode(read_private(self.path), type=dict[str, dict[str, str]])
            for numbers in found.values():
                for number in numbers.values():
                    int(number, 16)
            self._seen = found
        except (OSError, StateError, ValueError, msgspec.MsgspecError) as error:
            _log.warn(
                "{path} cannot be used, so CRLs are believed whatever came before: {error}",
                event="crl-memory-lost",
                path=str(self.path),
                error=str(error),
            )

    def seen(self, source: str) -> Mapping[str, int]:
        """The numbers of that source, by issuer."""
        return {issuer: int(number, 16) for issuer, number in self._seen.get(source, {}).items()}

    def remember(self, source: str, numbers: Mapping[str, int]) -> None:
        """These are the highest now; a service does not stop because they cannot be written."""
        before = self._seen.setdefault(source, {})
        higher = {issuer: f"{number:x}" for issuer, number in numbers.items()}
        if before | higher == before:
            return
        before.update(higher)
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        with self.memory.writing():
            make_private_in_state(self.path.parent)
            write_whole(self.path, msgspec.json.encode(self._seen), 0o600)


def crl_numbers_path(state_dir: Path, who: str) -> Path:
    """Where one endpoint keeps them."""
    return state_dir / "crls" / f"{hashlib.sha256(who.encode()).hexdigest()[:16]}.json"
