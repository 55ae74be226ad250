"""Requests and answers of agents, and of whoever looks after them; as :mod:`twisted_mesh.api.messages` has them."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from pki.policy.entry import EntryDocument


class AgentEntries(Struct, frozen=True):
    """All entries of the agent that asks, as ``GET /api/v1/agent/entries`` answers."""

    version: str
    """For ``after`` in the next question: it is answered once they differ from these."""
    entries: list[EntryDocument]


#: That an agent may state of one workload.
MOST_SELECTORS = 64


class AgentSignRequest(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/agent/sign``: an agent asks for a workload of its machine."""

    csr: str
    """PEM; the key is the workload's."""
    requested_id: str
    entry: str
    """The id of one of the agent's entries."""
    selectors: list[str]
    """What the agent has attested of the workload."""
    ttl: str | None = None


class AgentJwtRequest(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/agent/jwt``: a token for a workload of the agent's machine."""

    entry: str
    selectors: list[str]
    audience: list[str]
    ttl: str | None = None


class AgentJwt(Struct, frozen=True):
    """A JWT-SVID."""

    token: str
    spiffe_id: str
    expires_at: str


class NewAgentToken(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/agents``: a join token for an agent, known or new."""

    name: str
    ttl: str | None = None
    """How long the token is good; ten minutes where nothing is said."""
    key: str | None = None
    """:func:`pki.keys.key_id` of the only key that it may certify."""
    reason: str = ""


class NewAgents(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/entries/agents``: let agents in by what their platform proves."""

    agents: str
    """What they are called, with one fact in braces: ``prod.{k8s_psat.agent_node_name}``."""
    selectors: list[str]
    """All of them must have been proven."""
    reattest: bool = False
    """Whether they must be proven at each renewal too."""
    comment: str = ""
    reason: str = ""


class NewAlias(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/entries/aliases``: a name for all agents of which something was proven."""

    alias: str
    selectors: list[str]
    comment: str = ""
    reason: str = ""


class AgentRow(Struct, frozen=True):
    """One agent."""

    name: str
    spiffe_id: str
    status: str
    """``banned``, ``joined`` where it has a certificate that is good, else ``expected``."""
    created_at: str
    entries: int
    """How many entries have it for their parent."""
    last_seen: str | None = None
    """When it asked for its entries the last time, since the CA was started."""
    serial: str | None = None
    """Of its latest certificate that is good."""
    expires_at: str | None = None
    selectors: list[str] | UnsetType = UNSET
    """What its platform has proven. Unset where it came by a token."""
    claim: str | UnsetType = UNSET
    """What it has used up to come. Unset where its evidence may be shown again."""
    aliases: list[str] | UnsetType = UNSET
    """The IDs of the aliases that it is called by. Unset for none."""


class AgentRows(Struct, frozen=True):
    """``GET /api/v1/agents``."""

    agents: list[AgentRow]


class EndAgent(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/agents/NAME``: what becomes of an agent."""

    action: Literal["evict", "ban", "unban"]
    reason: str = ""
    revocation_reason: str = ""
    """Of its certificates; ``keyCompromise`` for a ban and ``cessationOfOperation`` else, where nothing is said."""


class ClaimRow(Struct, frozen=True):
    """What a platform vouches for once, and what it has bought."""

    claim: str
    spiffe_id: str
    serial: str
    key: str
    """:func:`pki.keys.key_id` of the key that has used it."""
    used_at: str
    until: str | None = None
    """From when on nobody can show it any more; None where that never ends."""


class ClaimRows(Struct, frozen=True):
    """``GET /api/v1/claims``: some of those that were used, by their text."""

    claims: list[ClaimRow]
    next: str | None = None
    """For ``after`` in the next question; None at the end."""


class EvictClaim(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/claims``: let a claim be used again, and revoke what it has bought."""

    claim: str
    reason: str = ""
    revocation_reason: str = ""
    """``cessationOfOperation`` where nothing is said."""


class AgentEnded(Struct, frozen=True):
    """What became of an agent, or of a claim."""

    name: str
    """Of the agent; the claim where no agent had used it."""
    action: str
    revoked: list[str]
    """Serials: its own certificates, and all that it had obtained for others."""
