"""Who may do what at the CA: one function decides, for every route."""

from collections.abc import Collection
from datetime import timedelta
from enum import StrEnum

from attrs import frozen

from pki.csr import IssuanceRequest
from pki.errors import PkiError
from pki.names import IPAddress
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from pki.validity import format_duration


class Action(StrEnum):
    """What can be asked of the CA."""

    SIGN = "sign"
    READ_CA = "read-ca"
    READ_BUNDLE = "read-bundle"
    READ_TRUST = "read-trust"
    REVOKE = "revoke"
    LIST = "list-certificates"
    READ_CHECKPOINT = "read-checkpoint"
    READ_AUDIT = "read-audit"
    READ_HEALTH = "read-health"
    DETACH_ROOT = "detach-root"
    LIVENESS = "liveness"
    READINESS = "readiness"
    METRICS = "metrics"


class Kind(StrEnum):
    """How much a caller has proven."""

    ANONYMOUS = "anonymous"
    WORKLOAD = "workload"
    ADMINISTRATOR = "administrator"


@frozen
class Principal:
    """Who is asking, and what proved it."""

    kind: Kind
    proof: str
    """What the attestor saw, for the log and the audit: ``unix:uid:1000``, ``x509:spiffe://…``."""
    spiffe_id: SpiffeId | None = None
    serial: int | None = None
    """Of the SVID that a workload presented."""
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[IPAddress, ...] = ()

    @property
    def evidence(self) -> str:
        """The proof with the serial that was presented: what descends from a stolen key shows it."""
        return (
            self.proof if self.serial is None else f"{self.proof} serial {serial_hex(self.serial)}"
        )

    def __str__(self) -> str:
        return str(self.spiffe_id) if self.spiffe_id else f"{self.kind} ({self.proof})"


@frozen
class Certificate:
    """The object of a revocation."""

    serial: int
    spiffe_id: SpiffeId | None


class NoProof(PkiError):
    """The caller has proven nothing, and the action needs proof (HTTP 401)."""

    code = "no-proof"


class Forbidden(PkiError):
    """The caller is known and may not (HTTP 403). ``rule`` names which rule said so."""

    code = "not-authorized"

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(f"{detail} (rule {rule})")


_WITHOUT_PROOF = {Action.READ_CA, Action.READ_BUNDLE, Action.LIVENESS}
#: Whoever believes the CA may see that its log only grows.
_WORKLOADS = _WITHOUT_PROOF | {Action.READ_TRUST, Action.READ_CHECKPOINT}

_Object = IssuanceRequest | Certificate | None


def permit(principal: Principal, action: Action, target: _Object = None) -> None:
    """Return if ``principal`` may do ``action`` to ``target``; default deny.

    Raises :class:`NoProof` or :class:`Forbidden`. A target of None asks whether the principal could
    do the action to anything at all: it lets a route refuse before it reads a body.
    """
    if action in _WITHOUT_PROOF or principal.kind is Kind.ADMINISTRATOR:
        return
    if principal.kind is Kind.ANONYMOUS:
        raise NoProof(
            f"{action} needs proof of who you are: call over mutual TLS with a current SVID, or on the CA's "
            "unix socket as its own user or root"
        )
    if action in _WORKLOADS:
        return
    if action is Action.SIGN:
        return _permit_renewal(principal, target)
    if action is Action.REVOKE:
        return _permit_revocation(principal, target)
    raise Forbidden(
        "administrators-only", f"{principal} may not do {action}: that is for administrators"
    )


def _permit_renewal(principal: Principal, request: _Object) -> None:
    if request is None:
        return
    if not isinstance(request, IssuanceRequest) or request.spiffe_id != principal.spiffe_id:
        raise Forbidden("own-identity-only", f"{principal} may renew its own ID and no other")
    extra = [
        str(name)
        for name in (*request.dns_names, *request.ip_addresses)
        if not (
            grants_by_default(request.spiffe_id, name)
            or name in principal.dns_names
            or name in principal.ip_addresses
        )
    ]
    if extra:
        raise Forbidden(
            "names-granted-only",
            f"{principal} may not carry {', '.join(extra)}: an administrator has to request the first certificate "
            "with these names",
        )


def _permit_revocation(principal: Principal, target: _Object) -> None:
    if target is None:
        return
    if (
        not isinstance(target, Certificate)
        or target.spiffe_id is None
        or target.spiffe_id != principal.spiffe_id
    ):
        raise Forbidden(
            "own-certificate-only",
            f"{principal} may revoke certificates of its own ID and no others",
        )


def grants_by_default(spiffe_id: SpiffeId, name: str | IPAddress) -> bool:
    """Whether a workload gets this host name without anybody's say-so.

    ``localhost`` and loopback addresses for all, ``NAME.TD`` for ``spiffe://TD/service/NAME``. A NAME
    with dots gets none: ``/service/a.b`` of ``td`` and ``/service/a`` of ``b.td`` would share it.
    """
    if not isinstance(name, str):
        return name.is_loopback
    segments = spiffe_id.segments
    own = (
        f"{segments[1]}.{spiffe_id.trust_domain}"
        if len(segments) == 2 and segments[0] == "service" and "." not in segments[1]
        else None
    )
    return name in ("localhost", own)


@frozen
class Lifetimes:
    """How long certificates live: what is given without asking, and the most that is given."""

    default: timedelta
    maximum: timedelta

    def grant(self, asked: timedelta | None) -> timedelta:
        """Raises :class:`TtlOutOfRange`."""
        if asked is None:
            return self.default
        if not timedelta(seconds=1) <= asked <= self.maximum:
            raise TtlOutOfRange(
                f"a lifetime of {format_duration(asked)} is out of range: ask for 1s to {format_duration(self.maximum)}"
            )
        return asked


class TtlOutOfRange(PkiError):
    """The lifetime that was asked for is not between 1 s and the CA's maximum."""

    code = "ttl-out-of-range"


def administrator(proof: str) -> Principal:
    return Principal(Kind.ADMINISTRATOR, proof)


def anonymous(proof: str) -> Principal:
    return Principal(Kind.ANONYMOUS, proof)


def workload(
    spiffe_id: SpiffeId,
    serial: int,
    dns_names: Collection[str] = (),
    ip_addresses: Collection[IPAddress] = (),
) -> Principal:
    return Principal(
        Kind.WORKLOAD, f"x509:{spiffe_id}", spiffe_id, serial, tuple(dns_names), tuple(ip_addresses)
    )
