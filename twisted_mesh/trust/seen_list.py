"""The newest signed list of logs that was read here: an older one is refused by the next start too."""

import os
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from attrs import define
from twisted.logger import Logger

from pki.ct.errors import BadLogList
from pki.ct.log_list import LogList
from pki.errors import PkiError
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.state.directory import StateError, write_whole
from twisted_mesh.state.private import make_private_in_state, read_private, refuse_open


@define(eq=False, repr=False)
class SeenList:
    """When the newest list at one path was made, in a file of ours."""

    path: Path
    what: str
    """The option and the list, for sentences."""

    @classmethod
    def of(cls, state_dir: Path, logs: Path, option: str) -> "SeenList":
        """Of the list at ``logs``, kept below ``state_dir``."""
        name = f"{sha256(os.fsencode(os.path.abspath(logs))).hexdigest()[:16]}.txt"
        return cls(state_dir / "ct-logs-seen" / name, f"{option} {logs}")

    def newest(self) -> datetime | None:
        """None where none was read. Raises :class:`BadLogList`: a start that cannot be judged is none."""
        if not os.path.lexists(self.path):
            return None
        try:
            refuse_open(self.path.parent)
            return parse_rfc3339(read_private(self.path).decode("ascii", "replace").strip())
        except (OSError, PkiError) as error:
            raise BadLogList(
                f"{self.path}, which says how new {self.what} was when it was last read, cannot be used ({error}): "
                "remove it if you know that the list is the newest"
            ) from None

    def refuse_older(self, found: LogList) -> None:
        """Raises :class:`BadLogList` for a list that is older than one that was read in an earlier life."""
        known = self.newest()
        if known is not None and (found.timestamp is None or found.timestamp < known):
            raise BadLogList(
                f"{self.what} is older than what was read there before, which is of {rfc3339(known)}: an earlier list "
                f"was put back; sign the list anew, or remove {self.path} if it is to count again"
            )

    def remember(self, found: LogList, log: Logger) -> None:
        """This one counts from now on. Where that cannot be written it is told, and known to this process only."""
        try:
            known = self.newest()
            if found.timestamp is None or (known is not None and found.timestamp <= known):
                return
            make_private_in_state(self.path.parent)
            write_whole(self.path, f"{rfc3339(found.timestamp)}\n".encode(), 0o600)
        except (OSError, StateError, BadLogList) as error:
            log.warn(
                "How new the list of logs is cannot be kept in {path}: an older one would be taken up at the next "
                "start: {error}",
                event="ct-logs-not-kept",
                path=str(self.path),
                error=str(error),
            )
