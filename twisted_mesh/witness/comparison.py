"""Witnesses compared: a log that shows them different trees is found by whichever has seen the larger one.

What that witness was shown it can read from the log, tiles and all: so it can prove what root its own tree has at the
size of the other's, and that this is another root. The other's tiles, which the log hides from it, are not needed.
"""

import random
from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from pki.ct.evidence import Evidence
from pki.ct.log_list import Log
from pki.ct.tree_head import open_note
from pki.errors import ANY_ERROR, PkiError, Problem
from twisted_mesh.ct.contradiction import of_view
from twisted_mesh.ct.errors import LogUnusable, NotInLog
from twisted_mesh.ct.reader import LogReader, SignedHead
from twisted_mesh.ct.transport import LogTransport
from twisted_mesh.ct.view import LogView
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.tasks import sleep, spawn
from twisted_mesh.witness.service import Witness

_LONGEST_NOTE = 128 * 1024


@define(eq=False, repr=False)
class Comparison:
    """Asks other witnesses again and again what they have cosigned, and holds that against what we have."""

    witness: Witness
    others: "tuple[LogTransport, ...]"
    reactor: IReactor
    log: Logger
    seconds: float = 60.0
    """Between two looks, on the average: each is drawn anew, so that witnesses do not ask in step."""
    draw: Callable[[], float] = random.random
    compared: int = field(default=0, init=False)
    """How often a head of another witness fitted ours."""
    problems: dict[str, Problem] = field(factory=dict, init=False)
    """By the URL of a witness, why the last look there came to nothing."""
    _doubted: set[bytes] = field(factory=set, init=False)

    async def run(self) -> None:
        """Compare, for ever."""
        while True:
            await sleep(self.reactor, self.seconds * (0.5 + self.draw()))
            try:
                await self.look()
            except ANY_ERROR:
                self.log.failure("a comparison of witnesses broke", event="compare-broke")

    async def look(self) -> None:
        """Once, with all."""
        for other in self.others:
            for log in self.witness.logs().logs:
                await self._look_at(other, log)

    async def _look_at(self, other: LogTransport, log: Log) -> None:
        where = str(other.url)
        mine = self.witness.head_of(log.origin)
        if mine is None or not log.monitoring_url:
            return
        try:
            theirs = await self._head_at(other, log)
            if theirs is not None:
                found = await self._compared(log, SignedHead(mine.head, mine.note), theirs)
                if found is not None:
                    await self.witness.keep(found, log)
            self.problems.pop(where, None)
        except PkiError as error:
            if where not in self.problems:
                self.log.warn(
                    "What {witness} has seen of {log} cannot be compared with what we have: {error}",
                    event="witness-not-compared",
                    witness=where,
                    log=log.origin,
                    error=str(error),
                )
            self.problems[where] = error.problems[0]

    def doubt(self, log: Log, seen: SignedHead, new: SignedHead) -> None:
        """Find out from the log's tiles whether ``new`` extends ``seen``, one such question of a log at a time."""
        if log.log_id not in self._doubted and log.monitoring_url:
            self._doubted.add(log.log_id)
            _ = spawn(self._find_out(log, seen, new), "looking into a doubtful head", self.log)

    async def _find_out(self, log: Log, seen: SignedHead, new: SignedHead) -> None:
        reader = LogReader(log, self.reactor)
        try:
            if (found := await of_view(LogView(reader, new), seen)) is not None:
                await self.witness.keep(found, log)
        except PkiError as error:
            self.log.warn(
                "{ct_log} has signed a head that was not shown to extend what was seen, and its tiles do not show "
                "more: {error}",
                event="witness-in-doubt",
                ct_log=log.origin,
                error=str(error),
            )
        finally:
            self._doubted.discard(log.log_id)
            reader.hang_up()

    async def _head_at(self, other: LogTransport, log: Log) -> SignedHead | None:
        try:
            data = await other.get(f"/checkpoint/{log.log_id.hex()}", _LONGEST_NOTE)
            note = data.decode()
        except NotInLog:
            return None
        except UnicodeDecodeError:
            raise LogUnusable(f"{other.url} answers with no signed note") from None
        return SignedHead(open_note(note, log), note)

    async def _compared(self, log: Log, mine: SignedHead, theirs: SignedHead) -> Evidence | None:
        reader = LogReader(log, self.reactor)
        try:
            if theirs.size > mine.size:
                # What the log shows us may have grown meanwhile; if not, it is the other's to prove.
                latest = await reader.checkpoint()
                if latest.size < theirs.size:
                    return None
                mine, older = latest, mine
                view = LogView(reader, mine)
                if (found := await of_view(view, older)) is not None:
                    return found
            else:
                view = LogView(reader, mine)
            found = await of_view(view, theirs)
            if found is None:
                self.compared += 1
            return found
        finally:
            reader.hang_up()
