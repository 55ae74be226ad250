"""Agents that their platform has proven: who is let in under which name, and what is recorded of it.

The entry that lets agents in buys the first certificate. With that an own entry of the agent is recorded, like that of
an agent which came by a token: by it the agent renews, and with it it is evicted. It keeps what was proven.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from attrs import define, frozen

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused
from pki.policy.entry import RegistrationEntry
from pki.policy.policy import Forbidden
from pki.policy.principal import Principal
from pki.spiffe import SpiffeId
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.stores.commands import Admission
from twisted_mesh.stores.records import StoredEntry

#: What proves who somebody is in the mesh, and nothing of a machine.
_OF_THE_MESH = frozenset(("x509", "token"))


class AgentTaken(PkiError):
    """Another agent has come under that name (HTTP 409)."""

    code = Code.ALREADY_ATTESTED


@frozen
class Admitted:
    """An agent that is let in."""

    own: RegistrationEntry
    """What buys it its ID from now on."""
    by: RegistrationEntry
    """What lets it in."""
    admission: Admission | None
    """What is to be recorded of that; None where it was before."""


@define(eq=False, repr=False)
class Admissions:
    """Decides about agents that come by their platform."""

    entries: RegistrationEntries

    def admit(
        self,
        principal: Principal,
        agent: SpiffeId,
        offered: Iterable[RegistrationEntry],
        bought_by: str | None,
        now: datetime,
    ) -> Admitted | None:
        """What becomes of an agent for which a certificate is granted, bought by the entry ``bought_by``.

        None where it has its own entry already, and need prove nothing of its machine. Raises :class:`Forbidden`,
        :class:`AgentTaken`.
        """
        offered = tuple(offered)
        admitting = [e for e in offered if e.admits(agent, principal.selectors)]
        # What has let it in before comes first: it tells by the same fact who it is.
        admitting.sort(key=lambda e: not e.admits(agent, self.entries.node_of(agent)))
        by = next(iter(admitting), None)
        admitted = None if by is None else self._admitted(principal, agent, by, now)
        if admitted is None and any(e.id == bought_by and e.lets_agents_in for e in offered):
            raise Forbidden(
                "ids-granted-only",
                f"{principal} is let in as an agent under no name like {agent.name}: 1 to 64 lower-case letters, "
                "digits, dots, dashes and underscores, a letter or digit first",
            )
        return admitted

    def _admitted(
        self, principal: Principal, agent: SpiffeId, by: RegistrationEntry, now: datetime
    ) -> Admitted | None:
        name = agent.name
        if self.entries.is_banned(name):
            raise Forbidden("agents-only", f"the agent {name} is banned (mesh-ctl agent list)")
        stored = self.entries.stored_of(name)
        own = None if stored is None else stored.entry
        renews = principal.serial is not None and principal.spiffe_id == agent
        if own is not None and not self._is_same(own, principal, agent, by):
            if renews:
                return None
            raise AgentTaken(
                f"the agent {name} has come by {own.claim or ('its platform' if own.node else 'a token')}, and is not "
                f"to be taken for another: mesh-ctl agent evict {name} ends it, and lets another come under its name"
            )
        node = frozenset(s for s in principal.selectors if s.kind not in _OF_THE_MESH)
        wanted = RegistrationEntry.of_agent(
            own_id(name), agent, node=node, claim=principal.claim, reattest=by.reattest
        )
        if stored is not None and own == wanted:
            return Admitted(wanted, by, None)
        why = f"let in by the entry {by.id}"
        admission = Admission(
            StoredEntry(wanted, now),
            self.entries.creation(principal, wanted, why),
            stored,
            None if own is None else self.entries.deletion(principal, own, why),
        )
        return Admitted(wanted, by, admission)

    def _is_same(
        self,
        own: RegistrationEntry,
        principal: Principal,
        agent: SpiffeId,
        by: RegistrationEntry,
    ) -> bool:
        """Whether an agent that came before is the one that comes now, as far as its platform tells.

        By its claim; where it has none, by being one to the entry that lets it in: another platform, or cluster, may
        have given somebody else the same name.
        """
        if not own.node or own.claim != principal.claim:
            return False
        node = self.entries.node_of(agent)
        return own.claim is not None or not node or by.admits(agent, node)


def own_id(name: str) -> str:
    """The id of the own entry of an agent that comes by its platform: of many that come at once one makes it."""
    return hashlib.sha256(f"agent {name}".encode()).hexdigest()[:16]


def alias_id(name: str) -> str:
    """The id of an alias's entry: there is one of each name."""
    return hashlib.sha256(f"alias {name}".encode()).hexdigest()[:16]


def demand_of_platform(entry: RegistrationEntry) -> RegistrationEntry:
    """``entry``, which is about agents. Raises :class:`Refused` where it wants what no platform proves."""
    wrong = [str(selector) for selector in sorted(entry.selectors) if selector.kind in _OF_THE_MESH]
    if wrong:
        rule = f"agents are told by what their platform proves of them, and {', '.join(wrong)} is of the mesh itself"
        raise Refused([Problem(Code.MALFORMED, rule, subject="selectors")])
    return entry
