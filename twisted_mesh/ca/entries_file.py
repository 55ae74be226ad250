"""``--entries FILE``: registration entries in TOML, checked as a whole before the CA starts.

::

    [entries.web]
    selectors = ["unix:user:www-data"]
    spiffe_id = "spiffe://{trust_domain}/service/web"
    dns_names = ["www.example.org"]

    [agents.prod]  # lets agents in by their platform
    agents = "prod.{k8s_psat.agent_node_name}"
    selectors = ["k8s_psat:cluster:prod"]

    [aliases.prod-nodes]  # spiffe://TD/mesh/alias/prod-nodes
    selectors = ["k8s_psat:cluster:prod"]
"""

import hashlib
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from attrs import evolve

from pki.codes import Code
from pki.errors import Problem, Refused, discreet
from pki.pem import is_pem, resemblance
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.id_template import IdTemplate
from pki.policy.selector import spoken
from pki.spiffe import AGENTS, ALIASES, TrustDomain
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.ca.admissions import demand_of_platform
from twisted_mesh.state.directory import StateError, read_trusted

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_SIZE = 4 * 1024 * 1024
_T = TypeVar("_T")


class BadEntriesFile(StateError):
    """The file of entries cannot be used; its text lists what is wrong with which entry."""


class _Filed(EntryMembers, frozen=True, forbid_unknown_fields=True):
    """One table of the file."""


class _Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of ``aliases``."""

    selectors: list[str]
    comment: str = ""


class _Agents(_Alias, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of ``agents``."""

    agents: str
    """What they are called, with a fact in braces."""
    reattest: bool = False
    """Whether each of them proves its machine at every renewal."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    entries: dict[str, dict[str, Any]] = {}
    agents: dict[str, dict[str, Any]] = {}
    aliases: dict[str, dict[str, Any]] = {}


def read_entries(path: Path, trust_domain: TrustDomain) -> tuple[RegistrationEntry, ...]:
    """Raises :class:`StateError` with everything that is wrong, also with who may change the file."""
    import tomllib  # many a CA has no such file

    declare_kinds()
    data = read_trusted(path, "--entries", _MAX_SIZE)
    try:
        text = data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
        file = msgspec.convert(tomllib.loads(text), _File)
    except (ValueError, RecursionError) as error:  # TOML's, msgspec's and Unicode's are ValueErrors
        told = _kind(data) or discreet(str(error), 300)
        raise BadEntriesFile(f"--entries {path}: {told}") from None
    found, wrong = [], []
    for tables, read in (
        (file.entries, _entry),
        (file.agents, _letting_in),
        (file.aliases, _alias),
    ):
        for name, facts in tables.items():
            try:
                found.append(read(name, facts, trust_domain))
            except Refused as error:
                wrong += [f"{discreet(name, 80)}: {p.subject}: {p.detail}" for p in error.problems]
    if wrong:
        raise BadEntriesFile(f"--entries {path}: {'; '.join(wrong)}")
    return tuple(found)


def _kind(data: bytes) -> str:
    """What a file that is no TOML is in its place, and what to do; empty where that cannot be seen."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        return "it is text in UTF-16, as PowerShell's > writes it, or no text: save it as UTF-8"
    seen = "it is PEM" if is_pem(data) else resemblance(data)
    return f"{seen}, and entries are written in TOML: name another file" if seen else ""


def _entry(name: str, facts: dict[str, Any], trust_domain: TrustDomain) -> RegistrationEntry:
    """Raises :class:`Refused`."""
    read = read_entry(f"file.{_demand_name(name)}", trust_domain, _converted(facts, _Filed))
    return evolve(read, id=f"{read.id}.{_meaning(read)}")


def _letting_in(name: str, facts: dict[str, Any], trust_domain: TrustDomain) -> RegistrationEntry:
    """What lets agents in. Raises :class:`Refused`."""
    filed = _converted(facts, _Agents)
    spiffe_id = f"{trust_domain.member(*AGENTS)}/{filed.agents}"
    said = EntryMembers(
        selectors=filed.selectors,
        spiffe_id=spiffe_id,
        comment=filed.comment,
        reattest=filed.reattest,
    )
    entry_id = f"file.agents.{_demand_name(name)}"
    read = demand_of_platform(read_entry(entry_id, trust_domain, said, IdTemplate.of_agents))
    return evolve(read, id=f"{read.id}.{_meaning(read)}")


def _alias(name: str, facts: dict[str, Any], trust_domain: TrustDomain) -> RegistrationEntry:
    """What many agents are called by. Raises :class:`Refused`."""
    filed = _converted(facts, _Alias)
    spiffe_id = f"{trust_domain.member(*ALIASES)}/{name}"
    said = EntryMembers(selectors=filed.selectors, spiffe_id=spiffe_id, comment=filed.comment)
    entry_id = f"file.aliases.{_demand_name(name)}"
    return demand_of_platform(read_entry(entry_id, trust_domain, said, IdTemplate.of_alias))


def _demand_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        rule = "it has lower-case letters, digits and dashes"
        raise Refused([Problem(Code.MALFORMED, rule, subject="name")])
    return name


def _converted(facts: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(facts, kind)
    except msgspec.ValidationError as error:
        problem = Problem(Code.MALFORMED, discreet(str(error), 200), subject="entry")
        raise Refused([problem]) from None


def _meaning(entry: RegistrationEntry) -> str:
    """Eight digits that change with who gets what: a certificate is renewed under the entry that bought it,
    and not under another that has taken its name."""
    told = f"{spoken(entry.selectors)} {entry.spiffe_id}"
    if entry.parent is not None:
        told += f" {entry.parent}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]
