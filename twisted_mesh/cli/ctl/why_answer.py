"""What ``mesh-ctl why`` does: whether a caller gets what it asks for, by what, and what would change that."""

import shlex
from collections.abc import Iterable, Sequence
from http import HTTPStatus

from attrs import evolve, frozen

from pki.codes import Code
from pki.errors import PkiError, Problem, printable
from pki.issuing.csr import IssuanceRequest
from pki.keys import key_id
from pki.policy.candidates import Candidate, Shortfall, candidates
from pki.policy.entry import DEFAULT_ENTRY
from pki.policy.join_token import JoinToken
from pki.policy.lifetimes import Lifetimes
from pki.policy.selector import Selector, spoken
from pki.policy.suggest import suggested
from pki.spiffe import AGENTS, SpiffeId, TrustDomain
from pki.svid.x509svid import uri_names
from pki.validity import format_duration, parse_lifetime
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import Registration, TokenRow
from twisted_mesh.api.policy_messages import IN_FORCE, PolicyStatus
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_actions import pairs
from twisted_mesh.cli.ctl.entry_actions import creating_command, entry_of
from twisted_mesh.cli.ctl.why_caller import Asked, Seen
from twisted_mesh.cli.ctl.why_policy import explanation
from twisted_mesh.cli.status import DONE, REFUSED

#: So many entries are shown, unless all are wanted.
_NEAREST = 5
_ROOT = Selector("unix:uid", "0")


@frozen
class _Token:
    """The join token of a request: never its text."""

    id: str
    status: str
    row: TokenRow | None = None
    problem: Problem | None = None

    @classmethod
    def looked_up(
        cls, text: str, rows: Iterable[TokenRow], request: IssuanceRequest | None
    ) -> "_Token":
        try:
            token_id = JoinToken.parse(text).id
        except PkiError as error:
            return cls("", "damaged", problem=Problem(Code.NO_PROOF, str(error)))
        row = next((row for row in rows if row.id == token_id), None)
        if row is None:
            detail = f"the CA does not know the token {token_id}: it was never made here, or expired long ago"
            return cls(token_id, "unknown", problem=Problem(Code.NO_PROOF, detail))
        return cls(token_id, row.status, row, _token_problem(row, request))


def _token_problem(row: TokenRow, request: IssuanceRequest | None) -> Problem | None:
    match row.status:
        case "revoked":
            return Problem(Code.NO_PROOF, f"the token {row.id} was revoked at {row.revoked_at}")
        case "expired":
            return Problem(Code.NO_PROOF, f"the token {row.id} expired at {row.expires_at}")
        case "spent":
            bought = "" if row.serial is None else f" on the certificate {pairs(row.serial)}"
            return Problem(
                Code.CONFLICT,
                f"the token {row.id} was spent at {row.spent_at}{bought}: only the very same request gets that again",
            )
    if row.key is not None and request is not None and key_id(request.public_key) != row.key:
        return Problem(
            Code.NOT_AUTHORIZED,
            f"the token {row.id} is for the key {row.key}, and the request has another (rule token-key-only)",
        )
    return None


@frozen
class Answer:
    """Whether a caller is let in, and all that has to do with it."""

    seen: Seen
    request: IssuanceRequest | None
    token: _Token | None
    problems: tuple[Problem, ...]
    """What stands in the way whatever entries there are."""
    candidates: Sequence[Candidate]
    """The nearest first."""
    issues: bool
    """Whether the caller needs no entry."""
    command: Sequence[str] | None = None
    """What would let the caller in."""
    agent: SpiffeId | None = None
    """Whose workload the caller is; None for who comes to the CA itself."""
    policy: PolicyStatus | None = None
    """What the CA asks besides; None where entries alone decide."""

    @property
    def has_entry(self) -> bool:
        """Whether some entry buys what is asked for."""
        return any(candidate.lets_in for candidate in self.candidates)

    @property
    def lets_in(self) -> bool:
        """Whether the CA would issue."""
        return not self.problems and (self.has_entry or self.issues)


@frozen
class Explaining:
    """``why``."""

    seen: Seen
    asked: Asked | None
    usual_domain: str
    all: bool
    as_json: bool
    agent: str | None = None
    """The name of the agent whose workload the caller is."""

    async def __call__(self, administration: Administration) -> int:
        answer = await self._answer(administration)
        shown = answer.candidates if self.all else answer.candidates[:_NEAREST]
        if answer.lets_in and not self.all:
            shown = [candidate for candidate in shown if candidate.lets_in]
        if self.as_json:
            output.put_json(_as_json(answer, shown))
        else:
            _put(answer, shown)
            more = len(answer.candidates) - len(shown)
            if more and not answer.lets_in:
                output.say(
                    f"{output.counted(more, 'entry', 'entries')} more, farther away: --all shows all"
                )
        return DONE if answer.lets_in else REFUSED

    async def _answer(self, administration: Administration) -> Answer:
        domain = await self._trust_domain(administration)
        known = await administration.registrations()
        request, problems = self.asked.judged(domain) if self.asked else (None, ())
        is_possible = not problems
        if request is not None and known.max_ttl is not None:
            problems += _too_long(request, known.max_ttl)
        agent = None if self.agent is None else domain.member(*AGENTS, self.agent)
        # What buys an agent its ID, and what bans it, is nothing for others.
        rows = [row for row in known.entries if not (row.agent or row.alias)]
        token, selectors = None, self.seen.selectors
        if agent is not None:
            aliases, more = await _of_agent(administration, agent)
            rows = [row for row in rows if row.parent in (str(agent), *aliases)]
            problems += more
        if self.asked is not None and self.asked.token is not None:
            tokens = await administration.tokens()
            token = _Token.looked_up(self.asked.token, tokens, request)
            # With a token its own entry counts and no other.
            bought = None if token.row is None else token.row.entry
            rows = [row for row in known.entries if row.id == bought]
            selectors |= {s for row in rows for s in _selectors(row) if s.kind == "token"}
            problems += () if token.problem is None else (token.problem,)
        renewed = None
        if agent is None:
            renewed = await _renewed(administration, request, selectors)
        near = _near(rows, domain, request, selectors, renewed, agent=agent)
        issues = token is None and agent is None and _issues(known.entries, selectors)
        seen = evolve(self.seen, selectors=selectors)
        answer = Answer(seen, request, token, problems, near, issues, agent=agent)
        # An entry helps where there is none; a token also where the one that was sent is no good.
        helps = is_possible and not answer.lets_in and (token is not None or not answer.has_entry)
        policy = await administration.policy()
        return evolve(
            answer,
            command=_command(answer) if helps else None,
            policy=policy if policy.state == IN_FORCE else None,
        )

    async def _trust_domain(self, administration: Administration) -> TrustDomain:
        """The CA's own, as its roots name it."""
        for root in await administration.client.roots():
            for name in uri_names(root):
                return TrustDomain.parse(name)
        return TrustDomain.parse(self.usual_domain)


def _too_long(request: IssuanceRequest, most: str) -> tuple[Problem, ...]:
    longest = parse_lifetime(most)
    try:
        Lifetimes(longest, longest).grant(request.ttl)
    except PkiError as error:
        return error.problems
    return ()


async def _renewed(
    administration: Administration,
    request: IssuanceRequest | None,
    selectors: Iterable[Selector],
) -> str | None:
    """The entry that bought the certificate that the caller has for the ID that it asks for again."""
    if request is None or Selector("x509", str(request.spiffe_id)) not in selectors:
        return None
    filters = {"spiffe_id": str(request.spiffe_id), "status": "valid"}
    async for page in administration.pages(filters, 1):
        for row in page.certificates:
            return row.entry
    return None


def _near(
    rows: Iterable[Registration],
    domain: TrustDomain,
    request: IssuanceRequest | None,
    selectors: frozenset[Selector],
    renewed: str | None,
    *,
    agent: SpiffeId | None,
) -> list[Candidate]:
    unhonoured = {row.id for row in rows if not row.honoured}
    found = candidates([entry_of(row, domain) for row in rows], request, selectors, renewed)
    told = []
    for candidate in found:
        more = (_NOT_HONOURED,) if candidate.entry.id in unhonoured else ()
        if (candidate.entry.parent is None) != (agent is None):
            more = (*more, _through(candidate.entry.parent))
        told.append(evolve(candidate, shortfalls=(*candidate.shortfalls, *more)))
    return sorted(told, key=lambda candidate: candidate.distance)


def _through(parent: SpiffeId | None) -> Shortfall:
    name = "" if parent is None else parent.name
    whose = f"the agent {name} (mesh-ctl why --agent {name} asks as one)"
    if parent is not None and parent.alias is not None:
        whose = f"agents that the alias {name} stands for (mesh-ctl why --agent NAME asks as one)"
    return Shortfall("own-entries-only", f"it counts only for workloads of {whose}")


async def _of_agent(
    administration: Administration, agent: SpiffeId
) -> tuple[Sequence[str], tuple[Problem, ...]]:
    """What an agent is called besides, and what is wrong with it, so that its entries buy nothing now."""
    try:
        row = await administration.agent(agent.name)
    except CaRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        detail = (
            f"there is no agent {agent.name}: mesh-ctl agent token create {agent.name} lets it join"
        )
        return (), (Problem(Code.NOT_AUTHORIZED, detail),)
    if row.status == "banned":
        detail = (
            f"the agent {agent.name} is banned: mesh-ctl agent unban {agent.name} takes it back"
        )
        return (), (Problem(Code.NOT_AUTHORIZED, detail),)
    return row.aliases or (), ()


_NOT_HONOURED = Shortfall(
    "not-honoured", "it counts only while the CA listens on loopback, and the CA listens beyond"
)


def _issues(rows: Iterable[Registration], selectors: Iterable[Selector]) -> bool:
    """Whether that is root or the CA's own user, who need no entry as long as the default one counts."""
    default = [row for row in rows if row.id == DEFAULT_ENTRY and row.honoured]
    users = {selector for row in default for selector in (_ROOT, *_selectors(row))}
    return not users.isdisjoint(selectors)


def _selectors(row: Registration) -> Iterable[Selector]:
    return map(Selector.parse, row.selectors)


def _command(answer: Answer) -> Sequence[str] | None:
    """What an administrator can do so that the caller is let in; None where that is not known."""
    request = answer.request
    if request is None:
        return None
    entry = suggested(request, answer.seen.selectors or {Selector("token", "new")})
    if entry is None:
        return None
    command = creating_command(evolve(entry, parent=answer.agent))
    if answer.token is None and answer.seen.selectors:
        return command
    # The entry of a token is made along with it.
    words = command[command.index("--spiffe-id") :]
    key = answer.token.row.key if answer.token and answer.token.row else None
    bound = ["--key", key_id(request.public_key)] if key else []
    return ["mesh-ctl", "token", "create", *words, *bound]


_AS_ADMINISTRATOR = (
    f"its user, who administers the CA and needs no entry as long as {DEFAULT_ENTRY} counts"
)


def _put(answer: Answer, shown: Sequence[Candidate]) -> None:
    facts = {"seen": f"{spoken(answer.seen.selectors)} ({answer.seen.of})", "asked": _asked(answer)}
    if answer.token is not None:
        facts["token"] = f"{answer.token.id} ({answer.token.status})".strip()
    output.put_facts(facts)
    output.put("")
    for problem in answer.problems:
        output.put(f"{output.status_word('fail')}: {printable(str(problem), 1000)}")
    letting = [candidate.entry.id for candidate in shown if candidate.lets_in]
    if answer.lets_in:
        names = ", ".join(f"the entry {printable(name, 80)}" for name in letting)
        output.put(f"{output.status_word('ok')}: let in by {names or _AS_ADMINISTRATOR}")
    elif not letting:
        output.put(f"{output.status_word('fail')}: no registration entry lets it in")
    for candidate in shown:
        output.put(
            f"\n{printable(candidate.entry.id, 80)} buys {printable(str(candidate.entry.spiffe_id))}"
        )
        for selector in candidate.missing:
            output.put(f"  missing: {printable(str(selector))}")
        for shortfall in candidate.shortfalls:
            output.put(f"  {shortfall.rule}: {printable(shortfall.detail, 1000)}")
    if answer.command is not None:
        output.put(f"\nThis would let it in:\n\n  {shlex.join(answer.command)}")
    elif answer.request is None and not answer.lets_in:
        output.say("name the ID with --spiffe-id to see what would let it in")
    if answer.policy is not None and answer.lets_in:
        output.say(
            "the CA's policy is asked besides, and was not here. What its rules say: "
            + shlex.join(explanation(answer.policy, answer.seen, answer.request, answer.candidates))
        )


def _asked(answer: Answer) -> str:
    request = answer.request
    if request is None:
        return "nothing that can be read" if answer.problems else "whatever an entry buys"
    names = [*request.dns_names, *map(str, request.ip_addresses)]
    told = str(request.spiffe_id)
    if names:
        told += f" with {', '.join(names)}"
    return told if request.ttl is None else f"{told} for {format_duration(request.ttl)}"


def _as_json(answer: Answer, shown: Sequence[Candidate]) -> dict[str, object]:
    request, token = answer.request, answer.token
    return {
        "let_in": answer.lets_in,
        "needs_entry": not answer.issues,
        "selectors": sorted(map(str, answer.seen.selectors)),
        "spiffe_id": None if request is None else str(request.spiffe_id),
        "token": None if token is None else {"id": token.id or None, "status": token.status},
        "problems": [
            {"code": problem.code, "detail": problem.detail, "remedy": problem.remedy}
            for problem in answer.problems
        ],
        "entries": [
            {
                "id": candidate.entry.id,
                "spiffe_id": str(candidate.entry.spiffe_id),
                "lets_in": candidate.lets_in,
                "missing": list(map(str, candidate.missing)),
                "in_the_way": [
                    {"rule": shortfall.rule, "detail": shortfall.detail}
                    for shortfall in candidate.shortfalls
                ],
            }
            for candidate in shown
        ],
        "command": None if answer.command is None else shlex.join(answer.command),
        "policy": None if answer.policy is None else answer.policy.digest,
    }
