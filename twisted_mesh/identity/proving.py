"""How an endpoint proves to its CA what it runs on: by evidence that is shown to that CA and to nobody else."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from attrs import define
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.keys.algorithm import PublicKey
from pki.spiffe import TrustDomain
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.evidence.interface import AttestationData, IProver
from twisted_mesh.evidence.option import prover
from twisted_mesh.http.address import CaAddress

if TYPE_CHECKING:
    from twisted_mesh.api.client import CaClient

T = TypeVar("T")
_UNAUTHORIZED = 401
#: For the help of an option.
KINDS = "k8s, aws, gcp, azure, oidc or x509pop"


@define(eq=False, repr=False)
class Proving:
    """``--attest``: evidence for one identity."""

    prover: IProver

    @classmethod
    def parse(
        cls,
        text: str | None,
        ca_url: str | None = None,
        *,
        has_token: bool,
        requires_pq: bool = False,
        option: str = "--attest",
    ) -> "Proving | None":
        """None where nothing is said; ``option`` is what it was said by. Raises :class:`Malformed`.

        ``ca_url`` is where the CA is, where that is said.
        """
        if text is None:
            return None
        if has_token:
            raise Malformed(
                f"{option} and a join token exclude each other: the platform proves who this is, or a token does"
            )
        proving = cls(prover(text))
        if requires_pq and proving.prover.where.startswith("https://"):
            raise Malformed(
                f"{option} {text} fetches its evidence from {proving.prover.where} by Python's own ssl, which does not "
                "tell by which group keys are exchanged: fetch the token in the job, and name its file (oidc:FILE), or "
                "go without --require-pq"
            )
        if ca_url is not None:
            proving.demand_judged(CaAddress.parse(ca_url))
        return proving

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

    async def evidence(
        self, client: "CaClient", key: PublicKey, trust_domain: TrustDomain, log: Logger
    ) -> AttestationData:
        """The same for that CA, with the challenge that it wants answered, on a thread; told in the caller's log."""
        self.demand_judged(client.address)
        challenge = None
        if self.prover.wants_challenge:
            challenge = await client.challenge(self.prover.kind)
        found: AttestationData = await client.defer(self.fetch, challenge, key, trust_domain)
        log.info(
            "Showing the CA evidence of this platform ({kind}), from {where}",
            event="evidence-shown",
            kind=found.kind,
            where=self.prover.where,
        )
        return found

    async def shown(
        self,
        client: "CaClient",
        key: PublicKey,
        trust_domain: TrustDomain,
        ask: Callable[[AttestationData], Awaitable[T]],
        log: Logger,
    ) -> T:
        """What the CA answers to ``ask`` with evidence; once more where it does not know its challenge any more."""
        try:
            return await ask(await self.evidence(client, key, trust_domain, log))
        except CaRefused as error:
            if not self.may_ask_again(error):
                raise
        return await ask(await self.evidence(client, key, trust_domain, log))

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
