"""A policy's files: rules in TOML."""

import re
import tomllib
from collections.abc import Mapping
from hashlib import sha256

import msgspec

from pki.codes import Code
from pki.errors import Problem, discreet
from pki.rules.errors import BadPolicy
from pki.rules.expression import Expression
from pki.rules.facts import RuleAction
from pki.rules.rule import Effect, External, Rule
from pki.rules.rule_set import RuleSet

#: The version of the files.
VERSION = 1
#: Bytes of all files together, and rules in them.
LARGEST_POLICY = 256 * 1024
MOST_RULES = 500
#: What the names of files with unit tests end in: they are no part of the policy.
TESTS = ".test.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LONGEST_REASON = 300


class _RuleTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    effect: str
    when: str
    on: list[str] = []
    reason: str = ""


class _ExternalTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    url: str
    on: list[str] = []
    timeout: float = 2.0
    ca_file: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    rule: list[_RuleTable] = []
    external: list[_ExternalTable] = []


def read_rules(files: Mapping[str, str]) -> RuleSet:
    """The policy that these files are together, text by name, in order of name.

    Raises :class:`~pki.rules.errors.BadPolicy` with all that is wrong with any of them.
    """
    reader = _Reader()
    if sum(map(len, files.values())) > LARGEST_POLICY:
        raise BadPolicy(
            [Problem(Code.BAD_POLICY, f"a policy has {LARGEST_POLICY >> 10} KiB at most")]
        )
    for name in sorted(files):
        reader.read(name, files[name])
    if not reader.problems and not reader.rules:
        reader.wrong("", "there is no rule in it", "write one: [[rule]] with name, effect and when")
    if reader.problems:
        raise BadPolicy(reader.problems)
    return RuleSet(tuple(reader.rules), digest_of(files), tuple(reader.externals), frozenset(files))


def digest_of(files: Mapping[str, str]) -> str:
    """What a policy is known by in the log and the audit."""
    hashed = sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name].encode()):
            hashed.update(len(part).to_bytes(8) + part)
    return f"sha256:{hashed.hexdigest()}"


class _Reader:
    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.externals: list[External] = []
        self.problems: list[Problem] = []
        self._names: set[str] = set()

    def wrong(self, where: str, detail: str, remedy: str = "") -> None:
        self.problems.append(
            Problem(
                Code.BAD_POLICY,
                f"{where}: {detail}" if where else detail,
                remedy=remedy,
                subject=where,
            )
        )

    def read(self, file: str, text: str) -> None:
        try:
            read = msgspec.convert(tomllib.loads(text), _File)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
            self.wrong(
                file, discreet(str(error), 300), "see docs/POLICY.md for the members of a rule"
            )
            return
        if read.version != VERSION:
            self.wrong(
                file, f"version {read.version} is not known here", f"write version = {VERSION}"
            )
            return
        for table in read.rule:
            self._rule(file, table)
        for external in read.external:
            self._external(file, external)

    def _rule(self, file: str, table: _RuleTable) -> None:
        where = f"{file}, rule {discreet(table.name, 64)!r}"
        before = len(self.problems)
        self._name(where, table.name)
        actions = self._actions(where, table.on)
        if table.effect not in tuple(Effect):
            self.wrong(
                where,
                "effect is neither allow nor deny",
                'write effect = "allow" or effect = "deny"',
            )
        if len(table.reason) > _LONGEST_REASON or not table.reason.isprintable():
            self.wrong(where, f"reason is one line of at most {_LONGEST_REASON} characters")
        if len(self._names) > MOST_RULES:
            self.wrong(where, f"there are more than {MOST_RULES} rules")
            return
        try:
            when = Expression.compile(table.when)
        except BadPolicy as error:
            for problem in error.problems:
                self.wrong(where, problem.detail, problem.remedy)
            return
        actions = self._known(where, actions, when.reads)
        if len(self.problems) == before:
            self.rules.append(
                Rule(table.name, Effect(table.effect), actions, when, table.reason, file)
            )

    def _known(
        self, where: str, named: frozenset[RuleAction], reads: frozenset[str]
    ) -> frozenset[RuleAction]:
        """When a rule is asked: as it says, or whenever all is known that it reads."""
        knowing = frozenset(
            action for action in RuleAction if all(action.knows(path) for path in reads)
        )
        for action in sorted(named - knowing):
            unknown = ", ".join(path for path in sorted(reads) if not action.knows(path))
            self.wrong(where, f"it is asked on {action}, when nothing is known of {unknown}")
        if not knowing:
            self.wrong(
                where,
                f"there is no action at which all is known that it reads: {', '.join(sorted(reads))}",
            )
        return named or knowing

    def _external(self, file: str, table: _ExternalTable) -> None:
        where = f"{file}, external {discreet(table.name, 64)!r}"
        before = len(self.problems)
        self._name(where, table.name)
        actions = self._actions(where, table.on)
        if any(action.is_of_endpoint for action in actions):
            self.wrong(where, "only a CA asks elsewhere: on has issue, renew or issue-jwt")
        if not table.url.startswith(("https://", "http://", "unix:")):
            self.wrong(where, "url is an address like https://opa.example:8181/v1/data/mesh/allow")
        if not 0.01 <= table.timeout <= 30:
            self.wrong(where, "timeout is seconds, from 0.01 to 30")
        if len(self.problems) == before:
            asked = actions or frozenset(
                action for action in RuleAction if not action.is_of_endpoint
            )
            self.externals.append(
                External(table.name, table.url, table.timeout, asked, table.ca_file, file)
            )

    def _name(self, where: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            self.wrong(where, "a name has up to 64 letters, digits, dots, hyphens and underscores")
        elif name in self._names:
            self.wrong(where, "another one has that name", "a refusal tells the name: make it one")
        self._names.add(name)

    def _actions(self, where: str, on: list[str]) -> frozenset[RuleAction]:
        unknown = [name for name in on if name not in tuple(RuleAction)]
        if unknown:
            self.wrong(
                where,
                f"on has {', '.join(discreet(name, 40) for name in unknown)}, and there are {', '.join(RuleAction)}",
            )
        return frozenset(RuleAction(name) for name in on if name in tuple(RuleAction))
