"""Why evidence of a platform is not taken: each reason with a code of its own."""

from collections.abc import Collection

from pki.codes import Code
from pki.errors import Problem, Refused, discreet
from pki.policy.policy import NoProof
from twisted_mesh.limits.rate_limit import TryLater

#: Seconds until who asks again may find it mended.
_RETRY_AFTER = 5.0


class BadEvidence(NoProof):
    """The evidence is there and proves nothing: forged, of another issuer, for another audience (HTTP 401).

    Its text names the rule and what to do, and nothing of the evidence but what may be shown.
    """

    code = Code.BAD_EVIDENCE


class EvidenceExpired(BadEvidence):
    """It was good, and its time is over; or it has not come (HTTP 401)."""

    code = Code.EVIDENCE_EXPIRED


class AttestorUnavailable(TryLater):
    """Whoever would say whether it is good cannot be asked now (HTTP 503 with Retry-After)."""

    code = Code.ATTESTOR_UNAVAILABLE

    def __init__(self, text: str, seconds: float = _RETRY_AFTER) -> None:
        super().__init__(text, seconds)


class UnknownAttestation(Refused):
    """This CA takes no evidence of that kind (HTTP 422)."""

    code = Code.UNKNOWN_ATTESTATION

    def __init__(self, kind: str, configured: Collection[str]) -> None:
        there = (
            f"it takes {', '.join(configured)}"
            if configured
            else "it takes none (mesh-ca --attestors FILE says which)"
        )
        detail = f"this CA takes no evidence of the kind {discreet(kind, 40)!r}: {there}"
        super().__init__([Problem(self.code, detail, subject="attestation")])
