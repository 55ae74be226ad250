"""What ``mesh-ctl agent`` does: let agents join, list and show them, end them."""

import shlex
from collections.abc import Sequence
from http import HTTPStatus
from typing import Literal

import msgspec
from attrs import frozen

from pki.errors import printable
from pki.policy.selector import is_label
from pki.spiffe import SpiffeId
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.agent_messages import AgentRow, EndAgent, NewAgentToken
from twisted_mesh.api.messages import CertificateRow, MadeToken, Registration
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_actions import connections_on, pairs, put_rows
from twisted_mesh.cli.ctl.cert_filters import digest_of
from twisted_mesh.cli.ctl.joining import installed_program, is_loopback, reaching_options
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.ctl.token_actions import check_life
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED

_HEADINGS = ("AGENT", "STATUS", "ENTRIES", "CERTIFICATE", "EXPIRES", "LAST SEEN", "MADE")
_OF_ENTRIES = ("ENTRY", "SELECTORS", "BUYS", "HINT")
#: The trust domain that programs take unless they are told otherwise.
_USUAL_DOMAIN = "mesh.local"
#: More certificates are not counted before an agent is ended; all of them are revoked.
_MANY = 10_000


def understood(name: str, ttl: str | None, key: str | None, reason: str) -> NewAgentToken:
    """What the options ask for. Raises :class:`Unusable`, which names the one that cannot be used."""
    checked(name)
    if ttl is not None:
        check_life(ttl)
    digest = None if key is None else digest_of(key, "--key takes")
    return NewAgentToken(name, ttl, digest, reason)


def checked(name: str) -> str:
    """The name of an agent. Raises :class:`Unusable`."""
    if not is_label(name):
        raise Unusable(
            f"NAME: {printable(name, 80)!r} is no name of an agent: write 1 to 64 lower-case letters, digits, dots, "
            "dashes and underscores, a letter or digit first"
        )
    return name


@frozen
class Creating:
    """``agent token create``."""

    new: NewAgentToken
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        made = await administration.create_agent_token(self.new)
        if self.as_json:
            output.put_json(msgspec.to_builtins(made))
            return DONE
        output.put_facts(
            {
                "token": made.id,
                "buys": f"one certificate of {made.spiffe_id}",
                "until": rfc3339(parse_rfc3339(made.expires_at)),
                "entry": f"{made.entry} (renewals last until the agent is evicted or banned)",
            }
        )
        output.put(f"\n{_told(made, self.new)}")
        return DONE


def _told(made: MadeToken, new: NewAgentToken) -> str:
    """The line by which the agent joins, and the one that makes an entry of it."""
    here = is_loopback(made.ca_url)
    domain = str(SpiffeId.parse(made.spiffe_id).trust_domain)
    line = [installed_program("mesh-agent") if here else "mesh-agent"]
    line += [] if domain == _USUAL_DOMAIN else ["--trust-domain", domain]
    line += ["--name", new.name, *reaching_options(made)]
    entry = ["mesh-ctl", "entry", "create", "--parent", made.spiffe_id]
    entry += ["--selector", "unix:user:web", "--spiffe-id", f"spiffe://{domain}/service/web"]
    where = "on this machine" if here else "on the agent's machine"
    parts = [
        f"To be run {where}. The token is shown this once:",
        f"  {shlex.join(line)}",
        "Workloads there get what entries with this agent as their parent say, like:",
        f"  {shlex.join(entry)}",
    ]
    return "\n\n".join(parts)


@frozen
class Listing:
    """``agent list``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = await administration.agents()
        nothing = "there are no agents: mesh-ctl agent token create NAME lets one join"
        output.put_rows(rows, _HEADINGS, _cells, nothing, as_json=self.as_json)
        return DONE


def _cells(row: AgentRow) -> tuple[str | None, ...]:
    serial = None if row.serial is None else pairs(row.serial)
    entries, made = str(row.entries), row.created_at
    return row.name, row.status, entries, serial, row.expires_at, row.last_seen, made


@frozen
class Showing:
    """``agent show``."""

    name: str
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        row = await administration.agent(self.name)
        entries = _children(row, (await administration.registrations()).entries)
        if self.as_json:
            told = [msgspec.to_builtins(entry) for entry in entries]
            output.put_json({**msgspec.to_builtins(row), "entries": told})
            return DONE
        facts: output.Facts = {
            "agent": row.name,
            "SPIFFE ID": row.spiffe_id,
            "status": row.status,
            "made": row.created_at,
            "certificate": None if row.serial is None else pairs(row.serial),
            "expires": row.expires_at,
            "last seen": row.last_seen,
            "its platform has proven": row.selectors or None,
            "by the claim": row.claim or None,
            "also called": row.aliases or None,
        }
        output.put_facts({name: value for name, value in facts.items() if value})
        if entries:
            output.put("")
            output.put_table(
                _OF_ENTRIES,
                (
                    (entry.id, ", ".join(entry.selectors), entry.spiffe_id, entry.hint or None)
                    for entry in entries
                ),
            )
        else:
            output.say(
                f"no entry counts through it: mesh-ctl entry create --parent {row.spiffe_id} makes one"
            )
        return DONE


def _children(row: AgentRow, entries: Sequence[Registration]) -> list[Registration]:
    parents = (row.spiffe_id, *(row.aliases or ()))
    return [entry for entry in entries if entry.parent in parents]


@frozen
class Ending:
    """``agent evict``, ``agent ban`` and ``agent unban``."""

    action: Literal["evict", "ban", "unban"]
    name: str
    reason: str
    dry_run: bool
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        if self.action != "unban" and (self.dry_run or not self.yes):
            due = await _due(administration, self.name)
            if self.dry_run:
                return put_due(due, as_json=self.as_json)
            if not confirmed(self._question(due), yes=self.yes):
                output.say("nothing was changed")
                return REFUSED
        ended = await administration.end_agent(self.name, EndAgent(self.action, self.reason))
        if self.as_json:
            output.put_json(msgspec.to_builtins(ended))
            return DONE
        done = {"evict": "evicted", "ban": "banned", "unban": "unbanned"}[self.action]
        told = f"agent {printable(ended.name, 80)} {done}"
        if self.action != "unban":
            told += f"; {output.counted(len(ended.revoked), 'certificate')} revoked"
        output.put(told)
        again = f"mesh-ctl agent token create {shlex.quote(self.name)}"
        if self.action == "ban":
            output.say(
                f"it may come again only after mesh-ctl agent unban {shlex.quote(self.name)}"
            )
        else:
            output.say(
                "it may come again by its platform, where an agent allow lets it in, or with another token: "
                f"{again}"
            )
        return DONE

    def _question(self, due: list[CertificateRow]) -> str:
        living = sum(map(connections_on, due))
        on_them = f", with {output.counted(living, 'open connection')}" if living else ""
        what = "Ban" if self.action == "ban" else "Evict"
        return (
            f"{what} the agent {printable(self.name, 80)}, and revoke its certificates and all that it has obtained "
            f"({counted_certificates(due)}{on_them}), for good?"
        )


def put_due(due: list[CertificateRow], *, as_json: bool) -> int:
    """What would be revoked."""
    if as_json:
        output.put_json([msgspec.to_builtins(row) for row in due])
    elif due:
        put_rows(due, connections=True)
    output.say(f"{counted_certificates(due)} would be revoked")
    return DONE


def counted_certificates(due: Sequence[CertificateRow]) -> str:
    """How many, for people."""
    some = "at least " if len(due) >= _MANY else ""
    return f"{some}{output.counted(len(due), 'certificate')}"


async def _due(administration: Administration, name: str) -> list[CertificateRow]:
    """What is good of the agent's certificates and of those that it has obtained. An agent may be unknown."""
    found: list[CertificateRow] = []
    try:
        agent = await administration.agent(name)
    except CaRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return found
    async for page in administration.pages({"agent": agent.spiffe_id, "status": "valid"}, _MANY):
        found += page.certificates
    return found
