"""What Prometheus can ask of the CA, besides the counters of events."""

from collections.abc import Callable
from functools import partial

from prometheus_client import Counter, Gauge

from twisted_mesh.ca.health import CHECKS
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.revocation.crl import PublishedCrl
from twisted_mesh.ca.revocation.ocsp_responder import STATUSES

HEALTH = Gauge(
    "mesh_ca_health", "What /readyz looks at: 0 well, 1 with a warning, 2 failing.", ["check"]
)
AUDIT_SIZE = Gauge("mesh_ca_audit_entries", "Entries of the audit log that are signed.")
UNDER_WAY = Gauge("mesh_ca_signatures_under_way", "Certificates that are being issued.")
CRL_NUMBER = Gauge("mesh_ca_crl_number", "The number of the CRL that is served.", ["issuer"])
CRL_AGE = Gauge("mesh_ca_crl_age_seconds", "Seconds since that CRL was made.", ["issuer"])
CRL_LEFT = Gauge(
    "mesh_ca_crl_seconds_left", "Seconds until nobody believes that CRL any more.", ["issuer"]
)
CRL_ENTRIES = Gauge("mesh_ca_crl_entries", "Certificates on that CRL.", ["issuer"])
OCSP_ANSWERS = Counter(
    "mesh_ca_ocsp_answers",
    "OCSP answers: how certificates stand, and why a request was not answered.",
    ["status"],
)


def count_ocsp(status: str) -> None:
    """An OCSP request is answered with one of :data:`STATUSES`."""
    OCSP_ANSWERS.labels(status).inc()


def watch(ca: CaParts) -> None:
    """Have the gauges show this CA's health, its audit log and what it publishes."""
    for check in CHECKS:
        HEALTH.labels(check).set_function(partial(ca.health.standing, check))
    AUDIT_SIZE.set_function(lambda: ca.log.latest.checkpoint.size if ca.log.latest else 0)
    UNDER_WAY.set_function(lambda: len(ca.issuance.under_way))
    for status in STATUSES:
        OCSP_ANSWERS.labels(status)
    served: dict[str, Callable[[], PublishedCrl | None]] = {
        "issuing": lambda: ca.publisher.current(ca.authorities.issuing.key_id),
        "root": lambda: ca.publisher.root.current,
    }
    for issuer, crl in served.items():
        CRL_NUMBER.labels(issuer).set_function(partial(_of, crl, lambda c: c.number))
        CRL_ENTRIES.labels(issuer).set_function(partial(_of, crl, lambda c: c.entries))
        CRL_AGE.labels(issuer).set_function(
            partial(_of, crl, lambda c: (ca.now() - c.made_at).total_seconds())
        )
        CRL_LEFT.labels(issuer).set_function(
            partial(_of, crl, lambda c: (c.span.next_update - ca.now()).total_seconds())
        )


def _of(crl: Callable[[], PublishedCrl | None], tell: Callable[[PublishedCrl], float]) -> float:
    """What is told of a CRL; 0 while there is none."""
    found = crl()
    return 0.0 if found is None else tell(found)
