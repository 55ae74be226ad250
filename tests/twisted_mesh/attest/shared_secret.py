"""The drill: an attestor as somebody else would write it. It takes this file, and one line that registers it."""

import hmac
from collections.abc import Mapping
from typing import Self

from attrs import define, field
from zope.interface import implementer

from pki.policy.policy import NoProof
from pki.policy.selector import SelectorKind, is_label
from twisted_mesh.attest.evidence import Attestation, Evidence, WithoutChallenge, seen
from twisted_mesh.attest.interface import IAttestor, Means

HEADER = "X-Shared-Secret"
NAME, SECRET = "build", b"correct horse battery staple"


@implementer(IAttestor)
@define(eq=False)
class SharedSecretAttestor(WithoutChallenge):
    """``secret:NAME`` of whoever knows the secret of that name, and shows it in a header."""

    secrets: Mapping[str, bytes] = field(factory=lambda: {NAME: SECRET}, repr=False)
    name = "secret"
    kinds = (SelectorKind("secret", is_label, "secret:build"),)

    @classmethod
    def of(cls, means: Means) -> Self:
        return cls()

    async def attest(self, evidence: Evidence) -> Attestation | None:
        shown = evidence.header(HEADER)
        if shown is None:
            return None
        for name, secret in self.secrets.items():
            if hmac.compare_digest(secret, shown):
                return Attestation(f"secret:{name}", seen("secret", name))
        raise NoProof(f"the secret in {HEADER} is none of this CA's: look whether it was changed")
