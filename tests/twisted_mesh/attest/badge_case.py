"""The platform of the drill, as the conformance suite tries it."""

import json
from contextlib import ExitStack

from tests.authorities import NOW
from tests.twisted_mesh.attest.badge import BadgeAttestor, Settings, mac_of
from tests.twisted_mesh.attest.cases import Case
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.evidence.interface import AttestationData

SECRET = "of-the-badge-office"


def make(stack: ExitStack) -> Case:
    challenges = Challenges(NOW.timestamp)
    attestor = BadgeAttestor(Settings(SECRET), challenges)

    def gather() -> Evidence:
        challenge = challenges.make("badge")
        mac = mac_of(SECRET, "build", challenge)
        shown = {"name": "build", "challenge": challenge, "mac": mac}
        return Evidence(attestation=AttestationData("badge", json.dumps(shown).encode()))

    def spoil() -> None:
        attestor.settings = Settings("another")

    return Case(attestor, gather, spoil)
