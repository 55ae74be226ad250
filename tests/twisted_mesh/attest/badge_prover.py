"""The endpoint's side of the drill: a badge in a file of two lines, its name and the secret."""

import json
from pathlib import Path
from typing import Self

from attrs import define
from zope.interface import implementer

from pki.errors import Malformed
from tests.twisted_mesh.attest.badge import mac_of
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence

#: The line that registers it.
PROVERS = {"badge": "tests.twisted_mesh.attest.badge_prover:BadgeProver"}


@implementer(IProver)
@define(eq=False, repr=False)
class BadgeProver:
    """Shows the badge in a file."""

    file: str
    kind = "badge"
    wants_challenge = True

    @property
    def where(self) -> str:
        return f"the badge {self.file}"

    @classmethod
    def of(cls, file: str | None) -> Self:
        if file is None:
            raise Malformed("--attest badge: name the badge's file, badge:FILE")
        return cls(file)

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        try:
            name, secret = Path(self.file).read_text().split()
        except (OSError, ValueError):
            raise NoEvidence(f"there is no badge at {self.file}") from None
        shown = {
            "name": name,
            "challenge": challenge or "",
            "mac": mac_of(secret, name, challenge or ""),
        }
        return AttestationData(self.kind, json.dumps(shown).encode())
