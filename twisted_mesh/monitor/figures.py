"""What Prometheus reads of a monitor: over a port, or from a file that node_exporter's textfile collector reads."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import msgspec
from attrs import define, field
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.http.status_site import LIVENESS, Page, Question
from twisted_mesh.monitor.alert import STANDING
from twisted_mesh.monitor.follower import Follower
from twisted_mesh.monitor.index import Index
from twisted_mesh.monitor.telling import Teller
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.meters import Reading, Readings
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.state.directory import write_whole

_log = logger("ct")


@define(eq=False, repr=False)
class Figures:
    """As they were after the last look at a log."""

    followers: Sequence[Follower]
    teller: Teller
    index: Index
    in_index: Defer
    file: Path | None = None
    """Written whole after each look."""
    alerts: Mapping[str, int] = field(factory=dict, init=False)
    standing: Sequence[tuple[str, str]] = field(factory=list, init=False)
    """Log and kind of what began and is not over."""
    _registry: CollectorRegistry = field(factory=CollectorRegistry, init=False)
    _file_problem: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._registry.register(Readings(self, READINGS))

    async def refresh(self) -> None:
        """Look again, and write the file."""
        self.alerts = await self.in_index(self.index.counts)
        found = await self.in_index(self.index.standing)
        self.standing = [(log, kind) for log, kind in found if kind in STANDING]
        if self.file is not None:
            try:
                write_whole(self.file, self.text, 0o644)
            except PkiError as error:
                if str(error) != self._file_problem:
                    _log.warn(
                        "{reason}", event="alerts-untold", reason=str(error), sink="metrics file"
                    )
                self._file_problem = str(error)
            else:
                self._file_problem = ""

    @property
    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)

    @property
    def questions(self) -> Mapping[str, Question]:
        """What may be asked at ``--status``, by its path."""
        return {"/livez": LIVENESS, "/readyz": self._readiness, "/metrics": self._metrics}

    async def _metrics(self) -> Page:
        return Page(self.text, content_type=CONTENT_TYPE_LATEST)

    async def _readiness(self) -> Page:
        """Whether it sees all there is to see, and can tell of it."""
        troubles = [
            {"name": kind, "detail": f"since the monitor looked last: {kind} of {log or 'the CA'}"}
            for log, kind in self.standing
        ]
        troubles += [{"name": name, "detail": why} for name, why in self.teller.failing.items()]
        if not troubles:
            return Page(msgspec.json.encode({"status": "ready"}))
        told = {"status": Code.NOT_READY, "code": Code.NOT_READY, "degraded": troubles}
        return Page(msgspec.json.encode(told), HTTPStatus.SERVICE_UNAVAILABLE)


def _read(figures: Figures) -> dict[str, float]:
    return {f.origin: float(f.place.size if f.place else 0) for f in figures.followers}


def _heads(figures: Figures) -> dict[str, float]:
    return {f.origin: f.head_at.timestamp() if f.head_at else 0.0 for f in figures.followers}


def _answers(figures: Figures) -> dict[str, float]:
    return {
        f.origin: f.answered_at.timestamp() if f.answered_at else 0.0 for f in figures.followers
    }


def _standing(figures: Figures) -> dict[str, float]:
    kinds = [kind for _, kind in figures.standing]
    return {str(kind): float(kinds.count(kind)) for kind in sorted(STANDING)}


READINGS: tuple[Reading[Figures], ...] = (
    Reading(
        "mesh_ct_entries_read", "Entries of each log that were read and verified.", _read, "log"
    ),
    Reading(
        "mesh_ct_head_timestamp_seconds",
        "When each log has signed its newest head, by its own clock; 0 before the first.",
        _heads,
        "log",
    ),
    Reading(
        "mesh_ct_answered_timestamp_seconds",
        "When each log was last read to its end.",
        _answers,
        "log",
    ),
    Reading(
        "mesh_ct_alerts_total",
        "Alerts that were ever raised, by kind.",
        lambda f: {kind: float(number) for kind, number in f.alerts.items()},
        "kind",
        is_counter=True,
    ),
    Reading(
        "mesh_ct_standing", "What is wrong now with logs and the CA, by kind.", _standing, "kind"
    ),
    Reading(
        "mesh_ct_untold",
        "Ways to tell of alerts that fail.",
        lambda f: float(len(f.teller.failing)),
    ),
)
