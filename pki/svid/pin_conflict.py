"""Whose pins a change of CA keys would break: told by endpoints, and held against the path that will be served."""

from collections.abc import Collection, Iterable
from datetime import datetime

from attrs import frozen

from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.spki_pin import PinRule, PinSet, SpkiHash
from pki.validity import rfc3339


@frozen
class ReportedPins:
    """What one endpoint says that it holds. It can be a lie, by which a change is at most held up."""

    who: str
    """Its proof."""
    pins: PinSet


@frozen
class BrokenPin:
    """A rule that would refuse every peer of ours that it is about."""

    who: str
    """Who enforces it."""
    rule: PinRule
    until: datetime
    """When it only reports from."""

    def __str__(self) -> str:
        return f"{self.who} pins {self.rule.pattern} until {rfc3339(self.until)}"


def must_move(pins: PinSet, bundle: TrustBundle) -> tuple[PinRule, ...]:
    """Rules that will be broken once the issuing key is used that a bundle announces, below one of its roots."""
    roots = set(map(SpkiHash.of, bundle.roots))
    issuing = set(map(SpkiHash.parse, bundle.next_keys)) - roots
    if not issuing:
        return ()
    unmet = [set(pins.unmet(issuing | {root})) for root in roots]
    return tuple(
        rule
        for rule in pins.rules
        if rule.pattern.trust_domain == bundle.trust_domain and any(rule in one for one in unmet)
    )


def broken_by(
    reported: Iterable[ReportedPins],
    keys: Collection[SpkiHash],
    trust_domain: TrustDomain,
    now: datetime,
) -> tuple[BrokenPin, ...]:
    """Enforced rules that our workloads break where these ``keys`` stand above them, the root's too, by their holders.

    Whether there is a workload that a rule is about is not asked: there may be one by then.
    """
    found = {
        BrokenPin(one.who, rule, one.pins.until): None
        for one in reported
        if one.pins.enforced_at(now) and one.pins.until is not None
        for rule in one.pins.unmet(keys)
        if rule.pattern.trust_domain == trust_domain
    }
    return tuple(sorted(found, key=lambda broken: (broken.who, str(broken.rule))))
