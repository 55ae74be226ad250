"""The route of attestation: what is to be answered in evidence of a platform."""

from twisted_mesh.api.attestation_messages import Challenge, ChallengeRequest
from twisted_mesh.attest.challenges import LIFETIME
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.parts import CaParts


async def challenge(ca: CaParts, call: Call) -> Answer:
    """A :class:`Challenge`. Raises :class:`~twisted_mesh.attest.errors.UnknownAttestation`."""
    asked = call.read(ChallengeRequest)
    if call.attestors is None:
        raise AssertionError("a request came in, and no attestor was asked about it")
    wanted = await call.attestors.challenge(asked.kind)
    return json_answer(Challenge(None if wanted is None else wanted.decode("ascii"), LIFETIME))
