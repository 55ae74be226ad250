"""What Prometheus can ask of the CA, besides the counters of events."""

from functools import partial

from prometheus_client import Gauge

from twisted_mesh.ca.health import CHECKS
from twisted_mesh.ca.service import CertificateAuthority

HEALTH = Gauge(
    "mesh_ca_health", "What /readyz looks at: 0 well, 1 with a warning, 2 failing.", ["check"]
)
AUDIT_SIZE = Gauge("mesh_ca_audit_entries", "Entries of the audit log that are signed.")
UNDER_WAY = Gauge("mesh_ca_signatures_under_way", "Certificates that are being issued.")


def watch(ca: CertificateAuthority) -> None:
    """Have the gauges show this CA's health and its audit log."""
    for check in CHECKS:
        HEALTH.labels(check).set_function(partial(ca.health.standing, check))
    AUDIT_SIZE.set_function(lambda: ca.log.latest.checkpoint.size if ca.log.latest else 0)
    UNDER_WAY.set_function(lambda: ca.under_way)
