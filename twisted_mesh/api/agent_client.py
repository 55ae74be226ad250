"""What an agent asks of its CA: its entries, and certificates and tokens for the workloads of its machine."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from urllib.parse import quote

from attrs import define
from cryptography import x509

from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from pki.svid.x509svid import load_certificates
from pki.validity import format_duration
from twisted_mesh.api.agent_messages import (
    AgentEntries,
    AgentJwt,
    AgentJwtRequest,
    AgentSignRequest,
)
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.messages import SignAnswer

#: Seconds that a signature may take besides: its connection is kept for the next one.
_SIGNING = 1


@define(eq=False, repr=False)
class AgentClient:
    """Asks under the identity that ``client`` shows. Raises what that raises."""

    client: CaClient

    async def entries(self, after: str, wait: int) -> AgentEntries:
        """All of the agent's entries: at once where they are not those of version ``after``, else once they differ,
        or ``wait`` seconds are over."""
        path = f"/api/v1/agent/entries?after={quote(after, safe='')}"
        if wait:
            path += f"&wait={wait}s"
        return await self.client.ask("GET", path, None, AgentEntries, wait=max(wait, 1))

    async def sign(
        self, csr: bytes, spiffe_id: SpiffeId, entry: str, selectors: Iterable[Selector]
    ) -> tuple[x509.Certificate, ...]:
        """The certificate of a workload of those selectors and its intermediates, leaf first."""
        asked = AgentSignRequest(csr.decode("ascii"), str(spiffe_id), entry, _texts(selectors))
        answer = await self.client.ask(
            "POST", "/api/v1/agent/sign", asked, SignAnswer, wait=_SIGNING
        )
        return load_certificates(
            "".join((answer.certificate, *answer.chain)).encode(), "the CA's answer"
        )

    async def jwt(
        self,
        entry: str,
        selectors: Iterable[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> AgentJwt:
        """A token for a workload of those selectors."""
        life = None if ttl is None else format_duration(ttl)
        asked = AgentJwtRequest(entry, _texts(selectors), list(audience), life)
        return await self.client.ask("POST", "/api/v1/agent/jwt", asked, AgentJwt, wait=_SIGNING)


def _texts(selectors: Iterable[Selector]) -> list[str]:
    return [str(selector) for selector in sorted(selectors)]
