"""What the API says of evidence: the challenge that is asked for, and the evidence in a request to sign."""

from typing import Any, Self

import msgspec
from msgspec import Struct

from twisted_mesh.evidence.data import AttestationData

CHALLENGE = "/api/v1/attest/challenge"


class ChallengeRequest(Struct, frozen=True):
    """``POST /api/v1/attest/challenge``."""

    kind: str
    """As in :class:`AttestationMember`."""


class Challenge(Struct, frozen=True):
    """What has to be answered in the evidence."""

    challenge: str | None
    """None where evidence of that kind needs none."""
    expires_in: int
    """Seconds."""


class AttestationMember(Struct, frozen=True):
    """Evidence of the platform that a caller runs on, which is proof."""

    kind: str
    """Which platform's: ``k8s``, ``aws``, ``gcp``, ``azure``, ``oidc`` or ``x509pop``."""
    data: Any
    """As that kind has it: for a token the text of it."""

    @classmethod
    def of(cls, evidence: AttestationData) -> Self:
        """What an endpoint's prover has fetched."""
        return cls(evidence.kind, msgspec.json.decode(evidence.data))

    @property
    def evidence(self) -> AttestationData:
        """What an attestor is given. It is JSON of ours: no key stands twice in it."""
        return AttestationData(self.kind, msgspec.json.encode(self.data))
