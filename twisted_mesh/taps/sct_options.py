"""``--require-sct``: of how many logs certificates must have receipts; which logs is read again at SIGHUP."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from twisted.python import usage

from pki.errors import Problem
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.memory import Memory
from twisted_mesh.taps.reread import Reread, difference
from twisted_mesh.taps.service_options import ServiceOptions
from twisted_mesh.trust.store import TrustStore

if TYPE_CHECKING:  # most demand none, and load nothing of it
    from pki.ct.receipt import SctDemand
    from twisted_mesh.ct.inclusion_auditor import InclusionAuditor
    from twisted_mesh.trust.sct_options import SctOptions as Said

_LOGS, _KEY, _AUDIT = "ct-logs", "ct-logs-key", "ct-audit"


class SctOptions(ServiceOptions):
    """Options of a service that judges somebody: its peers, or the CA alone."""

    files: ClassVar[tuple[str, ...]] = (_LOGS,)
    optParameters: ClassVar = [
        [
            "require-sct",
            None,
            None,
            "believe no certificate without receipts (SCTs) of so many transparency logs, the CA's own neither",
        ],
        [
            _LOGS,
            None,
            None,
            "the file that says which logs those are, with their keys; read again at SIGHUP",
        ],
        [
            _KEY,
            None,
            None,
            "who must have signed that file (FILE.sig): a public key or certificate in PEM, or sha256/BASE64 of the "
            "key in FILE.pub",
        ],
        [
            _AUDIT,
            None,
            "on",
            "on: look in the background whether those logs have what they gave receipts for; off: ask no log",
        ],
    ]
    _said: "Said | None" = None

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        if self[_AUDIT] not in ("on", "off"):
            raise usage.UsageError("--ct-audit is on or off")
        logs, key = self[_LOGS], self[_KEY]
        self[_LOGS] = Path(self._from_here(logs, "--ct-logs")) if logs else None
        if key and not key.startswith("sha256/"):
            self[_KEY] = self._from_here(key, "--ct-logs-key")
        if any(self[name] is not None for name in ("require-sct", _LOGS, _KEY)):
            from twisted_mesh.trust.sct_options import SctOptions as Said

            self._said = Said.parse(self["require-sct"], self[_LOGS], self[_KEY])
        super().postOptions()

    def read_file_of(self, option: str) -> bytes:
        """See :class:`ServiceOptions`: the list of logs, its signature and the key for that are one text."""
        if option == _LOGS and self._said is not None:
            return self._said.read()
        return super().read_file_of(option)

    def read_demand(self, before: "SctDemand | None" = None) -> "SctDemand | None":
        """What is demanded, by what the file says now; ``before`` is what was until now. Raises :class:`PkiError`."""
        if self._said is None:
            return None
        return self._said.demand(self.text_of(_LOGS), before)

    def hold_to_newest(self, demand: "SctDemand | None") -> None:
        """Refuse a signed list that is older than one before, of an earlier life too. Raises :class:`PkiError`."""
        if self._said is not None and demand is not None and self.seat is None:
            self._said.hold_to_newest(demand, self["state-dir"], logger("ct"))

    def audit(self, reactor: IReactor, *stores: TrustStore) -> "InclusionAuditor | None":
        """What looks for the entries of whoever these let in, to be started; None where nobody is to look."""
        if self._said is None or not stores:
            return None
        from pki.ct.log_list import LogList
        from twisted_mesh.taps.ct_audit import auditor_of, said_off

        if self[_AUDIT] == "off":
            said_off(logger("ct"))
            return None

        first = stores[0]
        who = f"{self.program} {self['spiffe-id']}" if self.seat is None else None
        auditor = auditor_of(
            reactor,
            self["state-dir"],
            who,
            lambda: first.trust.demand.logs if first.trust.demand else LogList(()),
            requires_pq=bool(self["require-pq"]),
        )
        for store in stores:
            store.follow_receipts(auditor.saw)
        return auditor

    def reread_demand(self, *stores: TrustStore) -> list[Reread]:
        """How a service reads it again, and judges everybody by it who is connected."""

        async def again() -> str:
            from twisted_mesh.trust.sct_log import lines

            before = self["sct-demand"]
            demand = self.read_demand(before)
            self.hold_to_newest(demand)
            self["sct-demand"] = demand
            for store in stores:
                store.require_scts(demand)
            return difference(lines(before), lines(demand))

        return [Reread(f"--ct-logs {self[_LOGS]}", again)] if self._said is not None else []


def audited(auditor: "InclusionAuditor | None") -> list[Memory]:
    """What an auditor remembers in files, if there is one."""
    return [] if auditor is None else [auditor.memory.memory]


def troubles_of(auditor: "InclusionAuditor | None") -> Sequence[tuple[str, Problem]]:
    """What an auditor has found, if there is one."""
    return () if auditor is None else auditor.troubles()
