"""``--ct-audit``: an endpoint looks in the background whether logs have what they gave its peers receipts for."""

import random
from collections.abc import Callable
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from pki.ct.log_list import Log, LogList
from twisted_mesh.ct.audit_memory import AuditMemory, audit_path
from twisted_mesh.ct.evidence_files import EvidenceFiles
from twisted_mesh.ct.inclusion_auditor import InclusionAuditor
from twisted_mesh.ct.reader import LogReader
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.meters import Reading, Readings, show

#: What Prometheus reads of an auditor.
READINGS: tuple[Reading[InclusionAuditor], ...] = (
    Reading(
        "mesh_ct_audit_pending",
        "Entries of peers' certificates that logs have not been asked for yet.",
        lambda auditor: auditor.pending,
    ),
    Reading(
        "mesh_ct_audit_verified_total",
        "Entries of peers' certificates that logs have where they said.",
        lambda auditor: auditor.verified,
        is_counter=True,
    ),
    Reading(
        "mesh_ct_audit_dropped_total",
        "Certificates of peers that there was no room for.",
        lambda auditor: auditor.dropped,
        is_counter=True,
    ),
    Reading(
        "mesh_ct_alarms",
        "Broken promises of logs that stand, and whose proof is in a file.",
        lambda auditor: len(auditor.evidence.alarms),
    ),
)


def auditor_of(
    reactor: IReactor,
    state_dir: Path,
    who: str | None,
    logs: Callable[[], LogList],
    *,
    requires_pq: bool = False,
    is_brief: bool = False,
) -> InclusionAuditor:
    """A service; once it runs, tell its ``saw`` of each good verdict's path.

    ``who`` is the endpoint, by whose name it remembers: None for one of several processes, which remembers nothing.
    ``is_brief``: it runs for seconds at a time, and asks as soon as there is something to ask.
    """
    log = logger("ct")

    def opens(of: Log) -> LogReader:
        return LogReader(of, reactor, requires_pq=requires_pq)

    auditor = InclusionAuditor(
        logs,
        reactor,
        wall_clock,
        EvidenceFiles(state_dir / "ct-evidence", log),
        AuditMemory(audit_path(state_dir, who) if who else None, log),
        deferToThread,
        opens,
        draw=float if is_brief else random.random,
        log=log,
    )
    show("ct-audit", Readings(auditor, READINGS))
    return auditor


def said_off(log: Logger) -> None:
    """That nobody looks here whether logs keep their promises."""
    log.warn(
        "Logs are not asked whether they have what they gave receipts (SCTs) for, since --ct-audit is off: a log that "
        "hides a certificate is not found out here",
        event="ct-audit-off",
    )
