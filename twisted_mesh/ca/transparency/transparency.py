"""A CA's logs put together: which there are, how many must answer, and how that stands for whoever looks."""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define
from twisted.application.service import Service

from pki.codes import Code
from pki.ct.log_list import Log
from pki.errors import Problem
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.ca.transparency.log_watch import LogWatch
from twisted_mesh.ca.transparency.quorum import Demands, demand_quorum, quorum_of, shortfall
from twisted_mesh.ca.transparency.receipts import Receipts, WhenAway
from twisted_mesh.ca.transparency.standing import LogDoor, LogsStanding, LogStanding


@define(eq=False, repr=False, slots=False)
class Transparency(Service):
    """The logs of a CA. While it runs, they are looked after."""

    receipts: Receipts
    watch: LogWatch
    pin: SpkiHash
    """Of the key that the CA shows at their doors."""
    asked_quorum: int | None
    """``--ct-quorum``; None for what the number of logs says."""
    read: Callable[[], Sequence[Log]]
    """The logs of the options and their files, read again. Raises :class:`PkiError`."""
    door: Callable[[Log], LogDoor]
    """What asks one."""
    demands: Demands
    """What endpoints have said that they demand."""

    def startService(self) -> None:
        """Twisted's. Begin to look after them."""
        super().startService()
        self.watch.start()

    def stopService(self) -> Any:
        """Twisted's. Look no more, and keep no connection."""
        self.watch.stop()
        for log in self.receipts.logs:
            log.door.hang_up()
        return super().stopService()

    @property
    def names(self) -> list[str]:
        """Of the logs, for people."""
        return [log.name for log in self.receipts.logs]

    def reread(self) -> None:
        """Read again which logs there are. Raises :class:`PkiError`: then nothing has changed."""
        logs = self.read()
        quorum = quorum_of(self.asked_quorum, len(logs))
        demand_quorum(quorum, logs, self.demands)
        before = {standing.log: standing for standing in self.receipts.logs}
        self.receipts.go_by(
            tuple(before.get(log) or LogStanding(self.door(log)) for log in logs), quorum
        )
        for log, standing in before.items():
            if log not in logs:
                standing.door.hang_up()

    def standing(self) -> LogsStanding:
        """How the logs stand."""
        receipts = self.receipts
        logs, quorum = receipts.logs, receipts.quorum
        askable = len(receipts.askable())
        told = f"certificates get SCTs of {quorum} of {len(logs)} logs, and {askable} can be asked"
        if receipts.issued_without:
            told += f"; {receipts.issued_without} were issued with fewer since the start"
        if askable < quorum and receipts.when_away is WhenAway.REFUSE:
            detail = f"nothing is issued: {receipts.troubles()}"
            return LogsStanding(told, _problem(detail, _BRING_BACK), is_blocking=True)
        if askable < quorum:
            detail = f"certificates are issued without enough SCTs (--ct-away issue): {receipts.troubles()}"
            return LogsStanding(told, _problem(detail, _BRING_BACK))
        if short := shortfall(quorum, [log.log for log in logs], self.demands):
            return LogsStanding(told, _problem(f"{short}, and refuse others", _RAISE))
        if troubles := [f"{log.name}: {log.trouble}" for log in logs if log.trouble]:
            return LogsStanding(told, _problem("; ".join(troubles), _BRING_BACK))
        if len(logs) == quorum:
            detail = "there is no log to spare: while one is away, nothing is issued"
            return LogsStanding(
                told, _problem(detail, "run one more log (twistd mesh-ctlog) than --ct-quorum")
            )
        return LogsStanding(told)


_BRING_BACK = "look at these logs, and at the way there; they are asked again by themselves"
_RAISE = "raise --ct-quorum, and add logs that these endpoints know"


def _problem(detail: str, remedy: str) -> Problem:
    return Problem(Code.UNHEALTHY_LOGS, detail, remedy)
