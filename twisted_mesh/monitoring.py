"""Monitoring: what is counted of the log's events, what an endpoint shows Prometheus, and whether it is ready."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from threading import RLock

import msgspec
from attrs import frozen
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from twisted.logger import ILogObserver, LogEvent
from zope.interface import provider

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.http.status_site import LIVENESS, Page, Question
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.runtime.descriptors import Descriptors
from twisted_mesh.runtime.log import NAMESPACE
from twisted_mesh.runtime.meters import Reading, Readings, show
from twisted_mesh.state.memory import Memories, reading_of

#: Events that are worth an alarm. They are shown from the start, so that the first one is seen to come.
WORTH_AN_ALARM = (
    "log-contradicts",
    "log-seen-larger",
    "record-damaged",
    "record-lost",
    "witness-lost",
    "ct-alarm",
    "ctlog-halted",
    "ctlog-tile-damaged",
    "ctlog-unwritable",
    "crl-refused",
    "identity-expired",
    "files-behind",
    "renewal-failed",
    "own-certificate-revoked",
    "no-descriptors",
    "worker-died",
    "worker-silent",
    "reread-failed",
    "refusals-untold",
    "intent-written-off",
    "verify-broke",
    "establish-broke",
    "review-broke",
    "request-broke",
    "insecure-http",
    "allow-all",
    "pin-mismatch-reported",
    "pins-without-backup",
    "pins-end-soon",
    "pins-expired",
    "pins-withdrawn",
    "pins-must-move",
    "logs-withdrawn",
    "scts-unmeetable",
    "rotation-waits-for-pins",
    "rotation-breaks-pins",
)
#: Why a peer is turned away, or hung up on later. Others count as ``other``.
PEER_CODES = (
    Code.NO_CERTIFICATE,
    Code.EXPIRED,
    Code.NOT_YET_VALID,
    Code.REVOKED,
    Code.NO_SCT,
    Code.STALE_REVOCATION,
    Code.UNKNOWN_REVOCATION,
    Code.UNKNOWN_AUTHORITY,
    Code.INCOMPLETE_CHAIN,
    Code.ISSUER_MISMATCH,
    Code.BAD_SIGNATURE,
    Code.PROFILE_VIOLATION,
    Code.UNKNOWN_TRUST_DOMAIN,
    Code.NOT_AN_SVID,
    Code.NOT_A_SPIFFE_ID,
    Code.PIN_MISMATCH,
    Code.PINS_WITHDRAWN,
    Code.WRONG_USAGE,
    Code.NOT_A_CA,
    Code.PATH_TOO_LONG,
    Code.WEAK_KEY,
    Code.WEAK_SIGNATURE,
    Code.UNKNOWN_EXTENSION,
    Code.MALFORMED,
    Code.BAD_CERTIFICATE,
    Code.NOT_AUTHORIZED,
    Code.POLICY_DENIED,
    Code.POLICY_UNAVAILABLE,
    Code.UNUSABLE_EVIDENCE,
    Code.PROTOCOL_VERSION,
    Code.HANDSHAKE_FAILURE,
    Code.CLASSICAL_KEY_EXCHANGE,
    Code.NOT_TLS,
    Code.HANDSHAKE_TIMEOUT,
    Code.HANDSHAKE_TOO_LARGE,
    Code.HANDSHAKE_PUT_OFF,
    Code.TOO_MANY_CONNECTIONS,
    Code.INTERRUPTED,
    Code.TLS_ERROR,
    Code.UNREACHABLE,
    Code.OCSP_UNKNOWN,
    Code.OCSP_UNREACHABLE,
    Code.REFUSED_BY_PEER,
    Code.INTERNAL,
)
_OTHER = "other"
_OURS = f"{NAMESPACE}."

#: Of each event how many there were. Each request is one, and Prometheus' own counter costs it ten times as much.
_counts = dict.fromkeys(WORTH_AN_ALARM, 0)
_counting = RLock()  # a signal's handler may log while it is held
EVENTS: Reading[dict[str, int]] = Reading(
    "mesh_events_total", "Log events, by name.", dict.copy, "event", is_counter=True
)
show("events", Readings(_counts, (EVENTS,)))
REFUSALS = Counter("mesh_peers_refused", "Connections refused, by code.", ["code"])
SEVERED = Counter(
    "mesh_connections_severed",
    "Open connections that were closed because their peers would not be let in any more, by code.",
    ["code"],
)
#: The events that say, under ``codes``, why somebody was turned away.
_BY_CODE = {"peer-refused": REFUSALS, "connection-severed": SEVERED}

for _counter in _BY_CODE.values():
    for _code in (*PEER_CODES, _OTHER):
        _counter.labels(_code)


@lru_cache(maxsize=512)
def _is_ours(namespace: object) -> bool:
    return isinstance(namespace, str) and namespace.startswith(_OURS)


@provider(ILogObserver)
def count(event: LogEvent) -> None:
    """Counters of what happened."""
    name = event.get("event")
    if not name or not _is_ours(event.get("log_namespace")):
        return
    with _counting:
        _counts[name] = _counts.get(name, 0) + 1
    counter = _BY_CODE.get(name)
    if counter is not None:
        for code in str(event.get("codes", "")).split(", "):
            counter.labels(code if code in PEER_CODES else _OTHER).inc()


def _known_until(manager: CertificateManager) -> float:
    age = manager.trust_store.judge.freshness.age
    return 0.0 if age is None else manager.now().timestamp() - age


def _is_stale(manager: CertificateManager) -> float:
    freshness = manager.trust_store.judge.freshness
    return float(freshness.is_stale or freshness.doubt is not None)


def _pinned_until(manager: CertificateManager) -> float:
    pins = manager.trust_store.judge.trust.pins
    is_enforced = pins.enforced_at(manager.now())
    return pins.until.timestamp() if is_enforced and pins.until is not None else 0.0


#: What Prometheus reads of whoever has an identity: an endpoint, and the CA with its TLS port.
OF_IDENTITY: tuple[Reading[CertificateManager], ...] = (
    Reading(
        "mesh_certificate_issue_timestamp_seconds",
        "When the validity of our own certificate begins; 0 while there is none.",
        lambda m: m.svid.validity.not_before.timestamp() if m.svid else 0.0,
    ),
    Reading(
        "mesh_certificate_expiry_timestamp_seconds",
        "When our own certificate expires; 0 while there is none.",
        lambda m: m.svid.validity.not_after.timestamp() if m.svid else 0.0,
    ),
    Reading(
        "mesh_certificate_rotations_total",
        "Rotations of our own certificate since the start.",
        lambda m: m.rotations,
        is_counter=True,
    ),
    Reading("mesh_connections", "Open TLS connections.", lambda m: len(m.trust_store.registry)),
    Reading(
        "mesh_revocation_known_timestamp_seconds",
        "The moment up to which all that was revoked is known; 0 before the first answer.",
        _known_until,
    ),
    Reading("mesh_revocation_stale", "1 while that is longer ago than it may be.", _is_stale),
    Reading(
        "mesh_revocations_known",
        "Revoked certificates that are known and refused.",
        lambda m: len(m.trust_store.judge.trust.revocations),
    ),
    Reading(
        "mesh_pins_expiry_timestamp_seconds",
        "When enforced pins of CA keys begin to be reported only; 0 where none are enforced.",
        _pinned_until,
    ),
)


@frozen(eq=False)
class EndpointStatus:
    """What ``--status`` of an endpoint answers; nothing is looked up for it."""

    manager: CertificateManager
    descriptors: Descriptors
    memories: Memories
    troubles: Callable[[], Sequence[tuple[str, Problem]]] = lambda: ()
    """What else keeps failing, by name, while it serves all the same."""
    lack: Callable[[], Problem | None] = lambda: None
    """What else there must be before it is ready."""

    def show(self) -> None:
        """Have ``/metrics`` of this process tell of it."""
        readings: Sequence[Reading[EndpointStatus]] = (
            Reading("mesh_ready", "1 while /readyz says so.", lambda s: float(not s.problems())),
            reading_of(self.memories.memories),
        )
        show("status", Readings(self, readings))
        show("identity", Readings(self.manager, OF_IDENTITY))

    @property
    def questions(self) -> Mapping[str, Question]:
        """What may be asked, by its path."""
        return {"/livez": LIVENESS, "/readyz": self.readiness, "/metrics": metrics}

    def problems(self) -> Sequence[Problem]:
        """Why nobody should be sent here, the first that counts."""
        known, lack = self.manager.trust_store.freshness, self.descriptors.problem
        if lack is not None:
            return (lack,)
        if self.manager.seconds_left <= 0:
            return (Problem(Code.NO_IDENTITY, "", ""),)
        if known.refuses:
            return (known.problem(),)
        return tuple(filter(None, [self.lack()]))

    async def readiness(self) -> Page:
        """Whether it serves; with what it is the worse for, and serves all the same."""
        known = self.manager.trust_store.freshness
        told: dict[str, object] = {"status": "ready"}
        told["seconds_to_expiry"] = int(self.manager.seconds_left)
        told["revocation_age_seconds"] = None if known.age is None else round(known.age, 1)
        unwritten = [
            (lost.name, lost.problem)
            for lost in self.memories.unwritten
            if lost.problem is not None
        ]
        degraded = [
            {"name": name, "detail": problem.detail, "remedy": problem.remedy}
            for name, problem in (*unwritten, *self.troubles())
        ]
        if degraded:
            told["degraded"] = degraded
        status = HTTPStatus.OK
        for problem in self.problems():
            status = HTTPStatus.SERVICE_UNAVAILABLE
            told |= {"status": problem.code, "code": problem.code}
            if problem.detail:
                told["detail"] = str(problem)
        return Page(msgspec.json.encode(told), status)


async def metrics() -> Page:
    """All gauges and counters of the process, as Prometheus reads them."""
    return Page(generate_latest(), content_type=CONTENT_TYPE_LATEST)
