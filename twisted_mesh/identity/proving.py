"""How an endpoint proves to its CA what it runs on: by evidence that is shown to that CA and to nobody else."""

from attrs import define
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.keys.algorithm import PublicKey
from pki.spiffe import TrustDomain
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.evidence.interface import AttestationData, IProver
from twisted_mesh.evidence.option import prover
from twisted_mesh.http.address import CaAddress

_UNAUTHORIZED = 401


@define(eq=False, repr=False)
class Proving:
    """``--attest``: evidence for one identity."""

    prover: IProver

    @classmethod
    def parse(
        cls, text: str | None, *, has_token: bool, option: str = "--attest"
    ) -> "Proving | None":
        """None where nothing is said; ``option`` is what it was said by. Raises :class:`Malformed`."""
        if text is None:
            return None
        if has_token:
            raise Malformed(
                f"{option} and a join token exclude each other: the platform proves who this is, or a token does"
            )
        return cls(prover(text))

    def demand_judged(self, ca: CaAddress) -> None:
        """Raises :class:`Malformed` where nobody has judged who answers there: evidence is worth stealing."""
        if ca.scheme not in ("https", "unix"):
            raise Malformed(
                f"{self.prover.where} is shown to a CA at https:// or at its unix socket, and never at {ca}: whoever "
                "listens on the way could use it"
            )

    def fetch(
        self, challenge: str | None, key: PublicKey, trust_domain: TrustDomain
    ) -> AttestationData:
        """Fresh evidence for that key. It blocks. Raises :class:`PkiError`, :class:`NoEvidence` mostly."""
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return self.prover.prove(challenge, spki, str(trust_domain))

    def may_ask_again(self, error: PkiError) -> bool:
        """Whether the CA does not know its challenge any more: it was started again, or another one answered."""
        return (
            self.prover.wants_challenge
            and isinstance(error, CaRefused)
            and error.status == _UNAUTHORIZED
            and any(problem.code == Code.NO_PROOF for problem in error.problems)
        )


def wants_evidence(error: PkiError) -> bool:
    """Whether the CA takes our certificate, and wants evidence beside it."""
    return isinstance(error, CaRefused) and any(
        problem.code == Code.REATTEST_REQUIRED for problem in error.problems
    )
