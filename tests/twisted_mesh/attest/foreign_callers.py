"""A CA that takes identities of another PKI, and callers of all sorts."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from pki.issuing.csr import build_csr
from pki.keys import MemoryKey, spki_der
from pki.svid.possession import possession
from tests.authorities import BACKEND, MESH, NOW, key
from tests.foreign_pki import Holder, intermediate, machine, root
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.x509pop import X509PopAttestor, X509PopSettings
from twisted_mesh.evidence.interface import AttestationData

KIND = "x509pop"


class Rig:
    """A CA that takes such identities, and callers of all sorts."""

    def __init__(self, **settings: Any) -> None:
        self.time = NOW
        self.challenges = Challenges(self._seconds)
        told = evolve(X509PopSettings((root().certificate,)), **settings)
        self.attestor = X509PopAttestor(told, self.challenges, MESH, self.now)

    def now(self) -> Any:
        return self.time

    def _seconds(self) -> float:
        return self.time.timestamp()

    def asked(self) -> str:
        """A challenge, as the API hands it out."""
        made = outcome(self.attestor.challenge(KIND, b"null"))
        assert isinstance(made, bytes)
        return made.decode("ascii")

    def evidence(
        self,
        chain: tuple[Holder, ...] | None = None,
        *,
        challenge: str | None = None,
        signer: CertificateIssuerPrivateKeyTypes | None = None,
        trust_domain: str = str(MESH),
        signed_for: MemoryKey | None = None,
        signed: str | None = None,
        signature: bytes | None = None,
        shows: Mapping[str, Any] | None = None,
    ) -> Evidence:
        chain = (machine(), intermediate()) if chain is None else chain
        challenge = self.asked() if challenge is None else challenge
        own, certified = signer or chain[0].key, key("certified")
        if signature is None:
            spki = spki_der((signed_for or certified).public_key)
            signature = possession(own, signed or challenge, trust_domain, spki)
        shown = {
            "chain": [holder.pem for holder in chain],
            "challenge": challenge,
            "signature": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
            **(shows or {}),
        }
        return Evidence(
            attestation=AttestationData(KIND, json.dumps(shown).encode()),
            csr=build_csr(certified, BACKEND).decode(),
        )

    def attest(self, evidence: Evidence) -> Attestation:
        found = outcome(self.attestor.attest(evidence))
        assert isinstance(found, Attestation)
        return found
