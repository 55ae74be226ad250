"""Who asks something of the CA, and what has proven it."""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from pki.policy.selector import Selector
from pki.serial import serial_hex
from pki.spiffe import SpiffeId

#: Between the proof and a serial. No ID has a space in it.
_SERIAL = " serial "


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
    """Of the SVID that was presented."""
    selectors: frozenset[Selector] = frozenset()
    """What was attested."""
    entry: str | None = None
    """The registration entry that bought the SVID, or that the join token is bound to."""
    issues: bool = False
    """Whether it may have signed what no entry lets it have."""
    monitors: bool = False
    """Whether it may read how the CA is, and for that be no administrator."""

    only_renews: bool = False
    """Whether the CA that issued its SVID is revoked, and all that it may is to have that renewed."""
    claim: str | None = None
    """What counts once of what was attested: it buys certificates for one key."""
    claim_until: datetime | None = None
    """From when on nobody can show that any more; None where that never ends."""

    @property
    def evidence(self) -> str:
        """The proof with the serial that was presented: what descends from a stolen key shows it."""
        if self.serial is None or self.spiffe_id is None:
            return self.proof
        # It comes first, whatever else was proven beside it: what it has obtained is found by that.
        beside = self.proof.removeprefix(str(Selector("x509", str(self.spiffe_id))))
        return f"{evidence_of(self.spiffe_id)}{serial_hex(self.serial)}{beside}"

    def __str__(self) -> str:
        return str(self.spiffe_id) if self.spiffe_id else f"{self.kind} ({self.proof})"


def evidence_of(spiffe_id: SpiffeId) -> str:
    """What the evidence begins with of everybody who proves that ID by a certificate, and of nobody else."""
    return f"{Selector('x509', str(spiffe_id))}{_SERIAL}"


def administrator(
    proof: str, selectors: frozenset[Selector] = frozenset(), *, issues: bool = True
) -> Principal:
    """``issues``: whether it may have anything signed, also where no entry lets it."""
    return Principal(Kind.ADMINISTRATOR, proof, selectors=selectors, issues=issues)


def anonymous(proof: str, selectors: frozenset[Selector] = frozenset()) -> Principal:
    """Somebody of whom nothing but ``selectors`` is proven, by ``proof``."""
    return Principal(Kind.ANONYMOUS, proof, selectors=selectors)


def workload(spiffe_id: SpiffeId, serial: int) -> Principal:
    """Who has proven ``spiffe_id`` by its certificate with that serial."""
    selector = Selector("x509", str(spiffe_id))
    return Principal(Kind.WORKLOAD, str(selector), spiffe_id, serial, frozenset({selector}))
