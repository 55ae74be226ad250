"""What ``mesh-ctl agent`` does with agents by their platform: let them in, name many of them, list and evict claims."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from msgspec import to_builtins

from pki.errors import printable
from pki.policy.entry import EntryMembers, read_entry
from pki.policy.id_template import IdTemplate
from pki.spiffe import AGENTS, ALIASES, TrustDomain
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.agent_messages import ClaimRow, EvictClaim, NewAgents, NewAlias
from twisted_mesh.api.messages import CertificateRow
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.agent_actions import counted_certificates, put_due
from twisted_mesh.cli.ctl.cert_actions import pairs
from twisted_mesh.cli.ctl.entry_actions import naming_options, put_entry
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.status import DONE, REFUSED

_HEADINGS = ("CLAIM", "BOUGHT", "CERTIFICATE", "USED", "UNTIL")
#: More certificates are not counted before a claim is evicted; all of them are revoked.
_MANY = 10_000


@frozen
class Group:
    """How a group is named by the command line."""

    argument: str
    below: tuple[str, ...]
    template_of: Callable[[str, TrustDomain], IdTemplate]


AGENTS_OPTION = Group("TEMPLATE", AGENTS, IdTemplate.of_agents)
ALIAS_OPTION = Group("NAME", ALIASES, IdTemplate.of_alias)


def understood(
    name: str, usual_domain: str, said: Mapping[str, Any], naming: Group
) -> Mapping[str, Any]:
    """The members of what is asked for. Raises :class:`Unusable` with every option that cannot be used."""
    declare_kinds()
    domain = TrustDomain.parse(usual_domain)
    spiffe_id = f"{domain.member(*naming.below)}/{name}"
    selectors = list(said["selectors"])
    members = EntryMembers(
        selectors=selectors,
        spiffe_id=spiffe_id,
        comment=said["comment"],
        reattest=said.get("reattest", False),
    )
    with naming_options({"spiffe_id": naming.argument}):
        read_entry("new", domain, members, naming.template_of)
    return {**said, "name": name, "selectors": selectors}


@frozen
class Allowing:
    """``agent allow``."""

    new: Mapping[str, Any]
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        said = dict(self.new)
        row = await administration.allow_agents(NewAgents(agents=said.pop("name"), **said))
        put_entry(row, as_json=self.as_json)
        if not self.as_json:
            output.say(
                f"agents come by themselves: mesh-agent --name {self.new['name']}, with the fact in place of the "
                "braces, and --attest; mesh-ctl agent list lists those that have"
            )
        return DONE


@frozen
class Naming:
    """``agent alias``."""

    new: Mapping[str, Any]
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        said = dict(self.new)
        row = await administration.create_alias(NewAlias(alias=said.pop("name"), **said))
        put_entry(row, as_json=self.as_json)
        if not self.as_json:
            output.say(
                f"entries count through it by mesh-ctl entry create --parent {row.spiffe_id}"
            )
        return DONE


@frozen
class Claims:
    """``agent claims``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = [row async for page in administration.claims() for row in page]
        if self.as_json:
            output.put_json([to_builtins(row) for row in rows])
        elif rows:
            output.put_table(_HEADINGS, map(_cells, rows))
        else:
            output.say("no claim has been used: nobody has shown evidence that counts once")
        return DONE


def _cells(row: ClaimRow) -> tuple[str | None, ...]:
    return row.claim, row.spiffe_id, pairs(row.serial), row.used_at, row.until


@frozen
class Evicting:
    """``agent evict`` with a claim."""

    claim: str
    reason: str
    dry_run: bool
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        if self.dry_run or not self.yes:
            due = await self._due(administration)
            if self.dry_run:
                return put_due(due, as_json=self.as_json)
            question = (
                f"Let {printable(self.claim, 200)} be used again, and revoke what it has bought "
                f"({counted_certificates(due)}), for good?"
            )
            if not confirmed(question, yes=self.yes):
                output.say("nothing was changed")
                return REFUSED
        ended = await administration.evict_claim(EvictClaim(self.claim, self.reason))
        if self.as_json:
            output.put_json(to_builtins(ended))
            return DONE
        gone = output.counted(len(ended.revoked), "certificate")
        output.put(f"{printable(self.claim, 200)} may be used again; {gone} revoked")
        return DONE

    async def _due(self, administration: Administration) -> list[CertificateRow]:
        asked = {"claim": self.claim, "status": "valid"}
        return [
            row async for page in administration.pages(asked, _MANY) for row in page.certificates
        ]
