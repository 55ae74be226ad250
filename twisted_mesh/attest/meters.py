"""What is counted of evidence of platforms: ``mesh_ca_attestation*`` of a CA."""

from prometheus_client import Counter, Histogram

from pki.codes import Code
from twisted_mesh.attest.platforms import PLATFORMS

ATTESTATIONS = Counter(
    "mesh_ca_attestations",
    "Evidence of a platform that was shown, by its kind and the code by which it was refused: ok for none.",
    ["kind", "code"],
    registry=None,  # of a CA alone
)
SECONDS = Histogram(
    "mesh_ca_attestation_seconds",
    "From evidence of a platform to its verdict: waiting for a turn and asking the platform included.",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 10),
    registry=None,
)
ALL = (ATTESTATIONS, SECONDS)
GOOD, _OTHER = "ok", "other"
#: How it is refused; whatever else is ``other``.
CODES = (
    Code.BAD_EVIDENCE,
    Code.EVIDENCE_EXPIRED,
    Code.NO_PROOF,
    Code.MALFORMED,
    Code.ATTESTOR_UNAVAILABLE,
)
#: Every value of the label.
VERDICTS = (GOOD, *map(str, CODES), _OTHER)
for _kind in PLATFORMS:
    SECONDS.labels(_kind)
    for _verdict in VERDICTS:
        ATTESTATIONS.labels(_kind, _verdict)


def count_attestation(kind: str, verdict: str, seconds: float) -> None:
    """Evidence was judged: :data:`GOOD`, or refused with that code. ``kind`` is one that is configured."""
    ATTESTATIONS.labels(kind, verdict if verdict in VERDICTS else _OTHER).inc()
    SECONDS.labels(kind).observe(seconds)
