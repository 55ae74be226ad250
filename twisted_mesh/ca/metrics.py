"""What Prometheus reads of a CA, and of nobody else."""

from collections.abc import Callable, Mapping

from pki.issuing.root_line import Phase
from twisted_mesh.attest import meters as attest_meters
from twisted_mesh.ca import meters
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.check import Standing
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.revocation.crl import PublishedCrl
from twisted_mesh.runtime.meters import Reading, Readings, show
from twisted_mesh.state.memory import reading_of


def _of_crls(tell: Callable[[PublishedCrl], float]) -> Callable[[CaParts], Mapping[str, float]]:
    """What is told of each CRL that is served; 0 where there is none."""

    def read(ca: CaParts) -> Mapping[str, float]:
        served = {
            "issuing": ca.publisher.current(ca.authorities.issuing.key_id),
            "root": ca.publisher.root.current,
        }
        return {name: 0.0 if crl is None else tell(crl) for name, crl in served.items()}

    return read


def ends(of: Authorities) -> Mapping[str, float]:
    """When each of the CA's own certificates ends, as a POSIX time."""
    certificates = {"root": of.root, "issuing": of.issuing.certificate}
    if (other := of.root_line.other) is not None:
        certificates["other-root"] = other
    if of.prepared is not None:
        certificates["prepared"] = of.prepared.certificate
    return {
        name: certificate.not_valid_after_utc.timestamp()
        for name, certificate in certificates.items()
    }


def _phases(ca: CaParts) -> Mapping[str, float]:
    return {str(phase): float(ca.authorities.root_line.phase is phase) for phase in Phase}


def _revoked(ca: CaParts) -> Mapping[str, float]:
    now = ca.now()
    rows = [row for row in ca.authorities.revoked if row.revocation.expires_at >= now]
    roots = sum(row.is_root for row in rows)
    return {"issuing": float(len(rows) - roots), "root": float(roots)}


def _standings(ca: CaParts) -> Mapping[str, float]:
    return {check.name: float(check.standing) for check in ca.health.last}


def _is_ready(ca: CaParts) -> float:
    checks = ca.health.last
    return float(bool(checks) and all(check.standing < Standing.FAIL for check in checks))


def _last_act(ca: CaParts) -> float:
    return ca.log.latest.checkpoint.size if ca.log.latest else 0


def _federated(ca: CaParts) -> Mapping[str, float]:
    told = () if ca.federated is None else tuple(ca.federations)
    believed = sum(one.is_believed for one in told)
    return {"believed": float(believed), "not-believed": float(len(told) - believed)}


def _oldest(ca: CaParts) -> float:
    if ca.federated is None:
        return 0.0
    ages = (one.following.age(ca.now()) for one in ca.federations)
    return max((age.total_seconds() for age in ages if age is not None), default=0.0)


#: The one value where certificates are shown to no log.
_NO_LOGS: Mapping[str, float] = {"none": 0.0}


def _logs_up(ca: CaParts) -> Mapping[str, float]:
    if ca.transparency is None:
        return _NO_LOGS
    return {log.name: float(log.problem is None) for log in ca.transparency.receipts.logs}


def _log_answers(outcome: str) -> Callable[[CaParts], Mapping[str, float]]:
    def read(ca: CaParts) -> Mapping[str, float]:
        if ca.transparency is None:
            return _NO_LOGS
        logs = ca.transparency.receipts.logs
        return {log.name: float(log.outcomes[outcome]) for log in logs}

    return read


def _spare_logs(ca: CaParts) -> float:
    if ca.transparency is None:
        return 0.0
    receipts = ca.transparency.receipts
    return float(len(receipts.askable()) - receipts.quorum)


def _without_scts(ca: CaParts) -> float:
    return 0.0 if ca.transparency is None else float(ca.transparency.receipts.issued_without)


READINGS: tuple[Reading[CaParts], ...] = (
    Reading("mesh_ready", "1 while /readyz says so.", _is_ready),
    Reading(
        "mesh_ca_health",
        "What /readyz looks at: 0 well, 1 with a warning, 2 failing.",
        _standings,
        "check",
    ),
    Reading("mesh_ca_audit_entries", "Entries of the audit log that are signed.", _last_act),
    Reading(
        "mesh_ca_signatures_under_way",
        "Certificates that are being issued.",
        lambda ca: len(ca.issuance.under_way),
    ),
    Reading(
        "mesh_ca_key_store_up",
        "Whether a store that keys are in signs: 1, or 0 while it is away.",
        lambda ca: ca.key_stores.standing,
        "store",
    ),
    Reading(
        "mesh_ca_log_up",
        "Whether a log of certificates gives SCTs: 1, or 0 while it is away or refuses.",
        _logs_up,
        "log",
    ),
    Reading(
        "mesh_ca_log_scts_total",
        "SCTs that a log has given.",
        _log_answers("sct"),
        "log",
        is_counter=True,
    ),
    Reading(
        "mesh_ca_log_failures_total",
        "Certificates that a log has given no SCT for in time.",
        _log_answers("away"),
        "log",
        is_counter=True,
    ),
    Reading(
        "mesh_ca_log_refusals_total",
        "Certificates that a log has refused.",
        _log_answers("refused"),
        "log",
        is_counter=True,
    ),
    Reading(
        "mesh_ca_log_bad_scts_total",
        "SCTs of a log that prove nothing: of another log or certificate, of another time, with a wrong signature.",
        _log_answers("bad-sct"),
        "log",
        is_counter=True,
    ),
    Reading(
        "mesh_ca_spare_logs",
        "Logs that can be asked, less those that a certificate needs: below 0 nothing is issued.",
        _spare_logs,
    ),
    Reading(
        "mesh_ca_issued_without_scts_total",
        "Certificates that were issued with fewer SCTs than --ct-quorum, by --ct-away issue.",
        _without_scts,
        is_counter=True,
    ),
    Reading(
        "mesh_ca_crl_number",
        "The number of the CRL that is served; 0 while there is none.",
        _of_crls(lambda crl: crl.number),
        "issuer",
    ),
    Reading(
        "mesh_ca_crl_entries",
        "Certificates on that CRL.",
        _of_crls(lambda crl: crl.entries),
        "issuer",
    ),
    Reading(
        "mesh_ca_crl_made_timestamp_seconds",
        "When that CRL was made.",
        _of_crls(lambda crl: crl.made_at.timestamp()),
        "issuer",
    ),
    Reading(
        "mesh_ca_crl_expiry_timestamp_seconds",
        "From when on nobody believes that CRL any more.",
        _of_crls(lambda crl: crl.span.next_update.timestamp()),
        "issuer",
    ),
    Reading(
        "mesh_ca_issuer_expiry_timestamp_seconds",
        "When the CA's own certificates end; those of a prepared one and of another root are there while there is one.",
        lambda ca: ends(ca.authorities),
        "issuer",
    ),
    Reading(
        "mesh_ca_blocked_keys",
        "Keys that nothing is certified for: on record, and on the lists of --blocked-keys.",
        lambda ca: {
            "record": float(len(ca.blocked)),
            "lists": float(sum(len(each) for each in ca.blocked.lists)),
        },
        "of",
    ),
    Reading(
        "mesh_ca_federated_domains",
        "Trust domains that are federated with, and whether their bundles are handed out.",
        _federated,
        "bundle",
    ),
    Reading(
        "mesh_ca_federated_oldest_seconds",
        "How long ago the endpoint had it of those bundles which has been longest without an answer.",
        _oldest,
    ),
    Reading(
        "mesh_ca_root_phase",
        "1 for where the rotation of the root is: settled, prepared, activated or switched.",
        _phases,
        "phase",
    ),
    Reading(
        "mesh_ca_revoked_authorities",
        "CA certificates that are revoked and have not ended.",
        _revoked,
        "kind",
    ),
    Reading(
        "mesh_ca_succession_waits",
        "1 while a new issuing CA is due and the root's key is not here.",
        lambda ca: float(ca.rotator is not None and ca.rotator.waiting() is not None),
    ),
)


def watch(ca: CaParts) -> None:
    """Have ``/metrics`` of this process tell of this CA, and of no other."""
    readings = (*READINGS, reading_of(ca.health.memories))
    show("status", Readings(ca, readings, (*meters.ALL, *attest_meters.ALL)))
