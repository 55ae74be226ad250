"""The routes of agents: what an agent asks for its workloads, and what administrators do with agents."""

from datetime import timedelta
from http import HTTPStatus

from msgspec import UNSET

from pki.errors import Malformed, discreet
from pki.policy.join_token import LIFETIME
from pki.policy.policy import Forbidden
from pki.policy.selector import Selector, spoken
from pki.serial import serial_hex
from pki.svid.revocation_set import GIVEN_REASONS, Reason
from pki.validity import parse_duration, rfc3339
from twisted_mesh.api.agent_messages import (
    MOST_SELECTORS,
    AgentEnded,
    AgentEntries,
    AgentRow,
    AgentRows,
    AgentSignRequest,
    ClaimRow,
    ClaimRows,
    EndAgent,
    EvictClaim,
    NewAgents,
    NewAgentToken,
    NewAlias,
)
from twisted_mesh.api.messages import MadeToken
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.ca.agents import GroupOfAgents, KnownAgent
from twisted_mesh.ca.api.entries import made_token, reason_of, registration
from twisted_mesh.ca.api.issuing import issued_answer
from twisted_mesh.ca.api.request import Call, key_digest
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.api.trust import waited_for
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import UsedClaim

#: So many claims at most in one answer.
_CLAIMS = 500
#: What an agent can find out of a process.
_OF_WORKLOADS = frozenset(kind.name for kind in ProcessAttestor.kinds)


async def entries(ca: CaParts, call: Call) -> Answer:
    """The agent's own entries: at once where they differ from ``after``, else once they do, or ``wait`` is over."""
    after, wait = call.query.get("after", ""), waited_for(call)
    notifier = ca.agents_notifier
    version, found = ca.agents.entries_of(call.principal)
    if notifier is not None and wait:
        began = notifier.clock.seconds()
        gone, who = call.gone(), call.principal.proof
        while version == after and not call.is_gone and not notifier.is_closed:
            left = wait - (notifier.clock.seconds() - began)
            if left <= 0:
                break
            if not (ca.has_room_for_agents and notifier.has_room(who, call.holder)):
                call.close_after()
                break
            await notifier.wait(notifier.number, who, left, gone, call.holder)
            version, found = ca.agents.entries_of(call.principal)
    return json_answer(AgentEntries(version, [entry.members() for entry in found]))


async def sign(ca: CaParts, call: Call) -> Answer:
    """A certificate for a workload of the agent's machine. Raises :class:`Forbidden`, :class:`Refused`."""
    asked = call.read(AgentSignRequest)
    stated = stated_selectors(asked.selectors)
    entry = ca.agents.bought_by(call.principal, asked.entry, stated)
    issued = await ca.certificates.sign_through(
        call.principal,
        entry,
        stated,
        asked.csr.encode("utf-8", "replace"),
        asked.requested_id,
        ttl=parse_duration(asked.ttl) if asked.ttl is not None else None,
        source=call.source,
    )
    return json_answer(issued_answer(issued, asked.requested_id), HTTPStatus.CREATED)


def stated_selectors(texts: list[str]) -> frozenset[Selector]:
    """What an agent says that it has attested. Raises :class:`Malformed`, and :class:`Forbidden` for what none can."""
    if len(texts) > MOST_SELECTORS:
        raise Malformed(f"a workload has at most {MOST_SELECTORS} selectors, here {len(texts)}")
    stated = frozenset(map(Selector.parse, texts))
    if others := sorted(one for one in stated if one.kind not in _OF_WORKLOADS):
        raise Forbidden(
            "of-workloads-only",
            f"{spoken(others)} is not for an agent to say: it attests processes of its machine, and what proves more "
            "is shown to the CA itself",
        )
    return stated


async def list_agents(ca: CaParts, call: Call) -> Answer:
    """Every agent, by name."""
    return json_answer(AgentRows([_row(known) for known in await ca.agents.all()]))


async def show_agent(ca: CaParts, call: Call) -> Answer:
    """One agent. Raises :class:`Unknown`, :class:`Malformed`."""
    return json_answer(_row(await ca.agents.find(call.rest)))


async def create_token(ca: CaParts, call: Call) -> Answer:
    """A join token for an agent: a :class:`MadeToken`. Raises :class:`AgentBanned`, :class:`Malformed`."""
    asked = call.read(NewAgentToken)
    life: timedelta = parse_duration(asked.ttl) if asked.ttl is not None else LIFETIME
    made = await ca.agents.create_token(
        call.principal,
        asked.name,
        life,
        key=key_digest(asked.key, "key"),
        reason=reason_of(asked.reason),
    )
    answer: MadeToken = made_token(ca, made)
    return json_answer(answer, HTTPStatus.CREATED)


async def end_agent(ca: CaParts, call: Call) -> Answer:
    """Evict, ban or unban. Raises :class:`Unknown`, :class:`Malformed`."""
    asked = call.read(EndAgent)
    why, name, agents = reason_of(asked.reason), call.rest, ca.agents
    if asked.action == "unban":
        ended = await agents.unban(call.principal, name, why)
    elif asked.action == "ban":
        reason = _reason(asked.revocation_reason, Reason.KEY_COMPROMISE)
        ended = await agents.ban(call.principal, name, why, reason)
    else:
        reason = _reason(asked.revocation_reason, Reason.CESSATION_OF_OPERATION)
        ended = await agents.evict(call.principal, name, why, reason)
    serials = [serial_hex(one.serial) for one in ended.revoked]
    return json_answer(AgentEnded(name, asked.action, serials))


async def allow_agents(ca: CaParts, call: Call) -> Answer:
    """Let agents in by their platform: a :class:`Registration`. Raises :class:`Refused`, :class:`Malformed`."""
    asked = call.read(NewAgents)
    new = GroupOfAgents(asked.agents, asked.selectors, asked.comment, asked.reattest)
    made = await ca.agents.allow(call.principal, new, reason_of(asked.reason))
    return json_answer(registration(made), HTTPStatus.CREATED)


async def create_alias(ca: CaParts, call: Call) -> Answer:
    """A name for many agents: a :class:`Registration`. Raises :class:`Refused`, :class:`Conflict`."""
    asked = call.read(NewAlias)
    new = GroupOfAgents(asked.alias, asked.selectors, asked.comment)
    made = await ca.agents.name_alias(call.principal, new, reason_of(asked.reason))
    return json_answer(registration(made), HTTPStatus.CREATED)


async def list_claims(ca: CaParts, call: Call) -> Answer:
    """A page of the claims that were used: :class:`ClaimRows`."""
    used = await ca.store.claims(call.query.get("after", ""), _CLAIMS + 1)
    following = used[_CLAIMS - 1].claim if len(used) > _CLAIMS else None
    return json_answer(ClaimRows(list(map(_claim, used[:_CLAIMS])), following))


async def evict_claim(ca: CaParts, call: Call) -> Answer:
    """Let a claim be used again. Raises :class:`Unknown`, :class:`Malformed`."""
    asked = call.read(EvictClaim)
    reason = _reason(asked.revocation_reason, Reason.CESSATION_OF_OPERATION)
    ended = await ca.agents.evict_claim(
        call.principal, asked.claim, reason_of(asked.reason), reason
    )
    name = asked.claim if ended.agent is None else ended.agent.name
    return json_answer(AgentEnded(name, "evict", [serial_hex(one.serial) for one in ended.revoked]))


def _claim(used: UsedClaim) -> ClaimRow:
    return ClaimRow(
        used.claim,
        str(used.spiffe_id),
        serial_hex(used.serial),
        used.key,
        rfc3339(used.at),
        optional_time(used.until),
    )


def _reason(text: str, default: Reason) -> Reason:
    if not text:
        return default
    if text not in GIVEN_REASONS:
        raise Malformed(
            f"{discreet(text, 60)!r} is no reason: choose one of {', '.join(GIVEN_REASONS)}"
        )
    return Reason(text)


def _row(known: KnownAgent) -> AgentRow:
    own = known.certificate
    status = "banned" if known.is_banned else "joined" if own is not None else "expected"
    return AgentRow(
        name=known.name,
        spiffe_id=str(known.spiffe_id),
        status=status,
        created_at=optional_time(known.created_at) or "",
        entries=known.entries,
        last_seen=optional_time(known.last_seen),
        serial=None if own is None else serial_hex(own.serial),
        expires_at=None if own is None else rfc3339(own.expires_at),
        selectors=[str(selector) for selector in sorted(known.node)] or UNSET,
        claim=known.claim or UNSET,
        aliases=[str(alias) for alias in known.aliases] or UNSET,
    )
