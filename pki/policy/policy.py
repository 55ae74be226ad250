"""Who may do what at the CA: :func:`permit` decides for every route, :func:`grant` what a signature is of."""

from collections.abc import Collection, Iterable
from datetime import timedelta
from enum import StrEnum

from attrs import frozen

from pki.codes import Code
from pki.errors import PkiError, printable
from pki.issuing.csr import IssuanceRequest
from pki.policy.candidates import candidates, shortfalls
from pki.policy.entry import RegistrationEntry
from pki.policy.lifetimes import Lifetimes
from pki.policy.principal import Kind, Principal
from pki.policy.selector import Selector, spoken
from pki.spiffe import SpiffeId


class Action(StrEnum):
    """What can be asked of the CA."""

    SIGN = "sign"
    READ_CA = "read-ca"
    READ_BUNDLE = "read-bundle"
    READ_CRL = "read-crl"
    ASK_OCSP = "ask-ocsp"
    READ_TRUST = "read-trust"
    REVOKE = "revoke"
    LIST = "list-certificates"
    TELL_CONNECTIONS = "tell-connections"
    READ_CONNECTIONS = "read-connections"
    READ_CHECKPOINT = "read-checkpoint"
    READ_AUDIT = "read-audit"
    READ_HEALTH = "read-health"
    DETACH_ROOT = "detach-root"
    REVOKE_ISSUING = "revoke-issuing"
    ROTATE_ISSUING = "rotate-issuing"
    PROVE_KEYS = "prove-keys"
    """Have each of the CA's keys sign what the caller has drawn."""
    CERTIFY_ISSUING = "certify-issuing"
    """Have an issuing CA certified by a root elsewhere: its CSR out, its certificate in."""
    SIGN_BACKUP = "sign-backup"
    READ_ROOTS = "read-roots"
    CHANGE_ROOTS = "change-roots"
    READ_ENTRIES = "read-entries"
    CHANGE_ENTRIES = "change-entries"
    READ_JWT_KEYS = "read-jwt-keys"
    CHANGE_JWT_KEYS = "change-jwt-keys"
    READ_TOKENS = "read-tokens"
    CHANGE_TOKENS = "change-tokens"
    LIVENESS = "liveness"
    READINESS = "readiness"
    METRICS = "metrics"
    SERVE_WORKLOADS = "serve-workloads"
    """Of an agent: its entries, and certificates and tokens for workloads of its machine."""
    READ_AGENTS = "read-agents"
    CHANGE_AGENTS = "change-agents"
    READ_FEDERATION = "read-federation"
    CHANGE_FEDERATION = "change-federation"
    READ_BLOCKED_KEYS = "read-blocked-keys"
    CHANGE_BLOCKED_KEYS = "change-blocked-keys"
    READ_POLICY = "read-policy"
    CHANGE_POLICY = "change-policy"
    """Have it read again, or take it back."""
    ATTEST = "attest"
    """Ask for a challenge, to be answered in evidence of a platform."""


@frozen
class Certificate:
    """The object of a revocation."""

    serial: int
    spiffe_id: SpiffeId | None


_PROOFS = (
    "call over mutual TLS with a current SVID, with a join token (mesh-ctl token create), or on the CA's unix socket "
    "as a user whom a registration entry names"
)


class NoProof(PkiError):
    """The caller has proven nothing, and the action needs proof (HTTP 401)."""

    code = Code.NO_PROOF


class Forbidden(PkiError):
    """The caller is known and may not (HTTP 403). ``rule`` names which rule said so."""

    code = Code.NOT_AUTHORIZED

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(f"{detail} (rule {rule})")


class ReattestRequired(Forbidden):
    """The entry wants evidence of the platform each time, and an SVID alone was shown (HTTP 403)."""

    code = Code.REATTEST_REQUIRED

    def __init__(self, principal: Principal, entry: RegistrationEntry) -> None:
        missing = spoken(entry.missing(principal.selectors))
        super().__init__(
            "reattest",
            f"the entry {entry.id} of {principal} wants all of its selectors at each renewal, and {missing} was not "
            "seen now: send evidence of the platform along (--attest)",
        )


_WITHOUT_PROOF = {
    Action.READ_CA,
    Action.READ_BUNDLE,
    Action.READ_CRL,
    Action.ASK_OCSP,
    Action.LIVENESS,
    Action.ATTEST,
}
#: Whoever believes the CA may see that its log only grows.
_WORKLOADS = _WITHOUT_PROOF | {
    Action.READ_TRUST,
    Action.READ_CHECKPOINT,
    Action.TELL_CONNECTIONS,
}

#: What is left to whoever rests on a revoked CA: the way back.
_RENEWING = _WITHOUT_PROOF | {Action.SIGN, Action.READ_TRUST}

#: How the CA is: nothing of whom it knows, or of what it has signed.
MONITORING = frozenset({Action.LIVENESS, Action.READINESS, Action.METRICS, Action.READ_HEALTH})


def demand_proof(principal: Principal, action: Action) -> None:
    """Raises :class:`NoProof` for somebody whom no registration entry knows."""
    if principal.kind is Kind.ANONYMOUS:
        raise NoProof(f"{action} needs proof of who you are: {_PROOFS}")


def permit(principal: Principal, action: Action, target: Certificate | None = None) -> None:
    """Return if ``principal`` may do ``action`` to ``target``; default deny.

    Raises :class:`NoProof` or :class:`Forbidden`. A target of None asks whether the principal could
    do the action to anything at all: it lets a route refuse before it reads a body. What is signed for
    whoever may sign at all, :func:`grant` decides.
    """
    if principal.only_renews and action not in _RENEWING:
        raise Forbidden(
            "renew-first",
            f"the issuing CA of the certificate of {principal} is revoked: it may be renewed, and is good for nothing "
            "else",
        )
    if action is Action.SERVE_WORKLOADS:
        demand_proof(principal, action)
        return _permit_agent(principal)
    if action in _WITHOUT_PROOF or principal.kind is Kind.ADMINISTRATOR:
        return
    if action is Action.SIGN and principal.selectors:
        return
    demand_proof(principal, action)
    if action in _WORKLOADS or (principal.monitors and action in MONITORING):
        return
    if action is Action.REVOKE:
        return _permit_revocation(principal, target)
    others = " and whoever a --monitor of the CA names" if action in MONITORING else ""
    raise Forbidden(
        "administrators-only",
        f"{principal} may not do {action}: that is for administrators{others}",
    )


def _permit_agent(principal: Principal) -> None:
    if principal.spiffe_id is None or principal.spiffe_id.agent is None:
        raise Forbidden(
            "agents-only",
            f"{principal} is no agent: agents have a token of their own to join with (mesh-ctl agent token create)",
        )


@frozen
class Grant:
    """What may be signed."""

    entry: str | None
    """The registration entry that buys it; None where the caller needs none."""
    lifetime: timedelta
    common_name: str = ""
    """What the subject has in place of the ID's last path segment."""


def demand_entry(
    principal: Principal, requested_id: str, entries: Iterable[RegistrationEntry]
) -> None:
    """Refuse whoever can have nothing signed, whatever the CSR holds: it is not worth a look then.

    It refuses nobody whom :func:`grant` would let in, and says the same. ``requested_id`` is a
    caller's text. Raises :class:`NoProof`, :class:`Forbidden`.
    """
    permit(principal, Action.SIGN)
    _demand_own_id(principal, requested_id)
    if not principal.issues:
        entries = tuple(entries)
        if not _met(principal, requested_id, entries):
            raise _no_entry(principal, requested_id, entries)


def grant(
    principal: Principal,
    request: IssuanceRequest,
    entries: Collection[RegistrationEntry],
    lifetimes: Lifetimes,
) -> Grant:
    """What of ``entries`` lets ``principal`` have ``request``; default deny.

    An SVID needs no other proof to be renewed under the entry that bought it. Raises
    :class:`NoProof`, :class:`Forbidden` with the rule of the entry that comes nearest, and
    :class:`TtlOutOfRange`.
    """
    permit(principal, Action.SIGN)
    _demand_own_id(principal, str(request.spiffe_id))
    needs_none = principal.issues and not request.spiffe_id.is_reserved
    if needs_none and not _met(principal, str(request.spiffe_id), entries):
        return Grant(None, lifetimes.grant(request.ttl))
    try:
        return _granted(principal, request, entries, lifetimes)
    except Forbidden:
        if not needs_none:
            raise
        return Grant(None, lifetimes.grant(request.ttl))


def is_granted(
    principal: Principal,
    request: IssuanceRequest,
    entries: Collection[RegistrationEntry],
    lifetimes: Lifetimes,
) -> bool:
    """Whether :func:`grant` would let it, without a word on why not."""
    try:
        _ = grant(principal, request, entries, lifetimes)
    except PkiError:
        return False
    return True


def _demand_own_id(principal: Principal, requested_id: str) -> None:
    if principal.only_renews and requested_id != str(principal.spiffe_id):
        raise Forbidden(
            "renew-first",
            f"the issuing CA of the certificate of {principal} is revoked: renew that ID first, and then ask for "
            "others",
        )


def grant_through(
    agent: Principal,
    entry: RegistrationEntry,
    request: IssuanceRequest,
    stated: frozenset[Selector],
    lifetimes: Lifetimes,
    *,
    aliases: Collection[SpiffeId] = (),
) -> Grant:
    """What ``entry`` lets ``agent`` have for a workload of which it states those selectors; default deny.

    They are the agent's word; ``aliases`` are what it is called by besides.
    Raises :class:`NoProof`, :class:`Forbidden`, :class:`TtlOutOfRange`.
    """
    demand_through(agent, entry, stated, aliases)
    reasons = tuple(shortfalls(entry, request, stated))
    if reasons:
        detail = "; ".join(reason.detail for reason in reasons)
        raise Forbidden(reasons[0].rule, f"{agent} asks by the entry {entry.id}, but {detail}")
    return _bought(entry, request, lifetimes)


def demand_through(
    agent: Principal,
    entry: RegistrationEntry,
    stated: frozenset[Selector],
    aliases: Collection[SpiffeId] = (),
) -> None:
    """Refuse whoever is not the agent of ``entry``, or does not state all of its selectors.

    ``aliases`` are those that the agent is called by, by what its platform has proven.
    Raises :class:`NoProof`, :class:`Forbidden`.
    """
    permit(agent, Action.SERVE_WORKLOADS)
    if entry.parent is None or (entry.parent != agent.spiffe_id and entry.parent not in aliases):
        raise Forbidden("own-entries-only", f"the entry {entry.id} is not of {agent}")
    missing = entry.missing(stated)
    if missing:
        raise Forbidden(
            "selectors-of-entry",
            f"the entry {entry.id} wants {spoken(missing)} too; stated: {spoken(stated)}",
        )


def _granted(
    principal: Principal,
    request: IssuanceRequest,
    entries: Collection[RegistrationEntry],
    lifetimes: Lifetimes,
) -> Grant:
    requested_id = str(request.spiffe_id)
    met = _met(principal, requested_id, entries)
    if not met:
        raise _no_entry(principal, requested_id, entries)
    renewed = _renewed(principal, requested_id)
    nearest = candidates(met, request, principal.selectors, renewed)[0]
    if nearest.shortfalls:
        if principal.spiffe_id not in (None, request.spiffe_id):
            raise _no_entry(principal, requested_id, entries)
        rule = nearest.shortfalls[0].rule
        detail = "; ".join(shortfall.detail for shortfall in nearest.shortfalls)
        raise Forbidden(rule, f"{principal} matches the entry {nearest.entry.id}, but {detail}")
    return _bought(nearest.entry, request, lifetimes)


def _bought(entry: RegistrationEntry, request: IssuanceRequest, lifetimes: Lifetimes) -> Grant:
    if request.ttl is not None:
        return Grant(entry.id, lifetimes.grant(request.ttl), entry.common_name)
    most = min(entry.max_ttl or lifetimes.maximum, lifetimes.maximum)
    return Grant(entry.id, min(entry.ttl or lifetimes.default, most), entry.common_name)


def _renewed(principal: Principal, requested_id: str) -> str | None:
    """The entry that bought the caller's own certificate, where it asks for that ID again."""
    return principal.entry if requested_id == str(principal.spiffe_id) else None


def _met(
    principal: Principal, requested_id: str, entries: Iterable[RegistrationEntry]
) -> list[RegistrationEntry]:
    renewed = _renewed(principal, requested_id)
    return [
        entry
        for entry in entries
        if (entry.id == renewed and not entry.reattest) or entry.is_met_by(principal.selectors)
    ]


def _no_entry(
    principal: Principal, requested_id: str, entries: Iterable[RegistrationEntry]
) -> "Forbidden":
    renewed = _renewed(principal, requested_id)
    demanding = next((e for e in entries if e.id == renewed and e.reattest), None)
    if demanding is not None:
        return ReattestRequired(principal, demanding)
    seen = spoken(principal.selectors)
    if principal.spiffe_id is not None and requested_id != str(principal.spiffe_id):
        return Forbidden(
            "own-identity-only",
            f"{principal} may renew its own ID, and no registration entry lets it have another",
        )
    if principal.spiffe_id is not None:
        return Forbidden(
            "no-entry",
            f"no registration entry that counts lets {principal} renew: the one that bought its certificate is gone, "
            "or there never was one; have an administrator make one (mesh-ctl entry create)",
        )
    return Forbidden(
        "no-entry",
        f"no registration entry lets this caller have {printable(requested_id, 200)}; seen: {seen}. "
        "Have an administrator look with mesh-ctl why, and make an entry (mesh-ctl entry create) or a token "
        "(mesh-ctl token create)",
    )


def _permit_revocation(principal: Principal, target: Certificate | None) -> None:
    if target is None:
        return
    if target.spiffe_id is None or target.spiffe_id != principal.spiffe_id:
        raise Forbidden(
            "own-certificate-only",
            f"{principal} may revoke certificates of its own ID and no others",
        )
