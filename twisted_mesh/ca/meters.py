"""What a CA counts and times for Prometheus while it works."""

from prometheus_client import Counter, Histogram

from pki.codes import Code
from pki.keys.reference import SCHEMES
from twisted_mesh.ca.revocation.ocsp_responder import STATUSES

#: Why a request may be refused. Others count as ``other``.
REQUEST_CODES = (
    Code.NO_PROOF,
    Code.UNKNOWN_ATTESTATION,
    Code.BAD_EVIDENCE,
    Code.EVIDENCE_EXPIRED,
    Code.ALREADY_ATTESTED,
    Code.ATTESTOR_UNAVAILABLE,
    Code.REATTEST_REQUIRED,
    Code.POLICY_DENIED,
    Code.POLICY_UNAVAILABLE,
    Code.CLOCK_BEHIND,
    Code.LOG_AWAY,
    Code.NOT_AUTHORIZED,
    Code.REVOKED,
    Code.MALFORMED,
    Code.NOT_FOUND,
    Code.METHOD_NOT_ALLOWED,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.CROSS_ORIGIN,
    Code.CONFLICT,
    Code.ENTRY_IN_FILE,
    Code.NOT_BY_TOKEN,
    Code.RATE_LIMITED,
    Code.QUOTA,
    Code.TOO_LARGE,
    Code.BUSY,
    Code.REFUSED,
    Code.NOT_PUBLISHED,
    Code.STORE_UNAVAILABLE,
    Code.ISSUER_EXPIRED,
    Code.ISSUER_REVOKED,
    Code.NO_SUCCESSOR,
    Code.SIGNING_FAILED,
    Code.KEY_STORE_AWAY,
    Code.KEY_STORE_REFUSED,
    Code.TTL_OUT_OF_RANGE,
    Code.BAD_TOKEN,
    Code.NOT_A_SPIFFE_ID,
    Code.BAD_ENTRY,
    Code.BAD_REGISTRATION,
    Code.UNKNOWN_SELECTOR,
    Code.PROCESS_GONE,
    Code.PROCESS_UNREADABLE,
    Code.CANNOT_DETACH,
    Code.NO_COPY,
    Code.NO_ROOT_KEY,
    Code.SUCCESSION_WAITS,
    Code.ROOT_OUT_OF_TURN,
    Code.ROOT_UNACKNOWLEDGED,
    Code.ROOT_TOO_SOON,
    Code.ROOT_IN_USE,
    Code.ROOT_BREAKS_PIN,
    Code.ROOT_KEY_AWAY,
    Code.LINT,
    Code.PROOF_FAILED,
    Code.STATE,
    Code.POLICY_DENIED,
    Code.POLICY_UNAVAILABLE,
    Code.BAD_POLICY,
    Code.INTERNAL,
)
_OTHER = "other"

REFUSALS = Counter(
    "mesh_ca_requests_refused",
    "Requests to the API that were refused, by code.",
    ["code"],
    registry=None,
)
OCSP_ANSWERS = Counter(
    "mesh_ca_ocsp_answers",
    "OCSP answers: how certificates stand, and why a request was not answered.",
    ["status"],
    registry=None,
)
SIGNATURES = Histogram(
    "mesh_ca_sign_seconds",
    "From the draft to its signature and record on the disk: the key's time and the store's.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=None,
)
#: How a signature in a key store comes out.
KEY_OUTCOMES = ("made", "away", "refused", "broke")
KEY_SIGNATURES = Counter(
    "mesh_ca_key_signatures",
    "Signatures that were asked of keys in stores, by kind of store: made, away, refused or broke.",
    ["kind", "outcome"],
    registry=None,
)
KEY_SECONDS = Histogram(
    "mesh_ca_key_signature_seconds",
    "How long a key in a store took to sign, or to fail.",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=None,
)
LOG_SECONDS = Histogram(
    "mesh_ca_log_seconds",
    "From a precertificate to enough SCTs for its certificate.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=None,
)
POLICY_DECISIONS = Counter(
    "mesh_ca_policy_decisions",
    "What the policy has said of what was to be issued: allow, deny or unavailable, and by which rule.",
    ["outcome", "rule"],
    registry=None,
)
POLICY_SECONDS = Histogram(
    "mesh_ca_policy_seconds",
    "How long the policy took to decide, decision points outside included.",
    buckets=(
        0.00005,
        0.0001,
        0.00025,
        0.0005,
        0.001,
        0.0025,
        0.005,
        0.01,
        0.05,
        0.1,
        0.5,
        1,
        5,
        10,
    ),
    registry=None,
)
#: What ``/metrics`` shows of these.
ALL = (
    REFUSALS,
    OCSP_ANSWERS,
    SIGNATURES,
    KEY_SIGNATURES,
    KEY_SECONDS,
    LOG_SECONDS,
    POLICY_DECISIONS,
    POLICY_SECONDS,
)
#: So many rules have a line of their own in one life of the CA, whatever policies are read; others are ``other``.
MOST_RULES = 200
_rules: set[str] = set()
for _outcome in ("allow", "deny", "unavailable"):
    POLICY_DECISIONS.labels(_outcome, "")
for _kind in SCHEMES:
    KEY_SECONDS.labels(_kind)
    for _outcome in KEY_OUTCOMES:
        KEY_SIGNATURES.labels(_kind, _outcome)
for _code in (*REQUEST_CODES, _OTHER):
    REFUSALS.labels(_code)
for _status in STATUSES:
    OCSP_ANSWERS.labels(_status)


def count_refused(code: str) -> None:
    """A request is refused."""
    REFUSALS.labels(code if code in REQUEST_CODES else _OTHER).inc()


def count_ocsp(status: str) -> None:
    """An OCSP request is answered with one of :data:`STATUSES`."""
    OCSP_ANSWERS.labels(status).inc()


def took_to_sign(seconds: float) -> None:
    """A certificate is signed and on record."""
    SIGNATURES.observe(seconds)


def took_to_be_logged(seconds: float) -> None:
    """Enough logs have answered for a certificate."""
    LOG_SECONDS.observe(seconds)


def took_to_sign_elsewhere(kind: str, outcome: str, seconds: float) -> None:
    """A key in a store was asked for a signature."""
    KEY_SIGNATURES.labels(kind, outcome).inc()
    KEY_SECONDS.labels(kind).observe(seconds)


def count_decision(outcome: str, rule: str, seconds: float) -> None:
    """The policy was asked; ``rule`` is empty where none decided."""
    if rule not in _rules:
        if len(_rules) < MOST_RULES:
            _rules.add(rule)
        else:
            rule = _OTHER
    POLICY_DECISIONS.labels(outcome, rule).inc()
    POLICY_SECONDS.observe(seconds)
