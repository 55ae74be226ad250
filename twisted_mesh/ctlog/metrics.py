"""What Prometheus reads of a log."""

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import Counter, Histogram

from twisted_mesh.ctlog.examiner import Examiner
from twisted_mesh.ctlog.sequencer import Sequencer
from twisted_mesh.ctlog.site import LogSite
from twisted_mesh.ctlog.submissions import Submissions
from twisted_mesh.ctlog.witnesses import Witnesses
from twisted_mesh.runtime.meters import Reading, Readings, show

_BATCHES = Histogram(
    "mesh_ctlog_batch_seconds",
    "From the beginning of a batch until its entries are in a published tree: the disk's time, mostly.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=None,
)
_ADDED = Counter("mesh_ctlog_added", "Entries that this process has added.", registry=None)


class Watched(Protocol):
    """What is looked at."""

    sequencer: Sequencer | None
    witnesses: Witnesses | None
    examiner: Examiner
    submissions: Submissions
    site: LogSite

    @property
    def size(self) -> int: ...

    def problems(self) -> object: ...


def took(seconds: float, entries: int) -> None:
    """A batch took so long, and added so many."""
    _BATCHES.observe(seconds)
    _ADDED.inc(entries)


def _signed_at(log: Watched) -> float:
    return 0.0 if log.sequencer is None else log.sequencer.ledger.published.timestamp / 1000


def _cosigned(log: Watched) -> Mapping[str, float]:
    found = () if log.witnesses is None else log.witnesses.witnesses
    return {one.address.key.name: float(one.cosigned_at) for one in found}


def _waiting(log: Watched) -> float:
    return 0.0 if log.sequencer is None else float(log.sequencer.waiting)


def _submissions(log: Watched) -> Mapping[str, float]:
    return {outcome: float(count) for outcome, count in log.submissions.outcomes.items()}


def _reads(log: Watched) -> Mapping[str, float]:
    return {kind: float(count) for kind, count in log.site.reads.items()}


READINGS = (
    Reading[Watched](
        "mesh_ready", "1 while /readyz says so.", lambda log: float(not log.problems())
    ),
    Reading[Watched](
        "mesh_ctlog_entries", "Entries in the published tree.", lambda log: float(log.size)
    ),
    Reading[Watched](
        "mesh_ctlog_head_timestamp_seconds",
        "When the published head was signed: once a minute, where nothing is added.",
        _signed_at,
    ),
    Reading[Watched](
        "mesh_ctlog_examined",
        "Entries in full tiles that the present look through the disk has found to be what was signed.",
        lambda log: float(log.examiner.examined),
    ),
    Reading[Watched](
        "mesh_ctlog_cosigned_timestamp_seconds",
        "When each witness cosigned last, by its own clock; 0 where it has not in this life.",
        _cosigned,
        "witness",
    ),
    Reading[Watched]("mesh_ctlog_waiting", "Submissions that wait to be added.", _waiting),
    Reading[Watched](
        "mesh_ctlog_submissions_total",
        "Submissions by what came of them: new, again, or the code of the refusal.",
        _submissions,
        "outcome",
        is_counter=True,
    ),
    Reading[Watched](
        "mesh_ctlog_reads_total",
        "What was read: checkpoint, tile, data, issuer.",
        _reads,
        "kind",
        is_counter=True,
    ),
)


def watch(log: Watched) -> None:
    """Have ``/metrics`` of this process tell of it."""
    show("ctlog", Readings(log, READINGS, (_BATCHES, _ADDED)))
