"""What the acts of a log say of federated trust domains: which are followed how, and which bundle was accepted last."""

from collections.abc import Mapping
from typing import NamedTuple

from attrs import define, field

from pki.audit.log import Act, Entry

_PLACE = "federation "
#: By what an act tells how a trust domain is followed; what it has not is left out.
MEMBERS = ("url", "profile", "endpoint_id", "crl_url")
_DEEDS = ("federate", "end-federation", "accept-bundle")


def place_of(trust_domain: object) -> str:
    """The object of acts about it."""
    return f"{_PLACE}{trust_domain}"


class Told(NamedTuple):
    """What an act says, and which one it is."""

    position: int
    facts: Mapping[str, str]


class Accepted(NamedTuple):
    """The digest of a bundle, and the act by which it was accepted."""

    position: int
    digest: str


@define
class FederationActs:
    """Takes the entries of a log in their order; others than those about federation and restores are passed over."""

    begun: dict[str, Told] = field(factory=dict, init=False)
    """What was said of those that are federated with, by name."""
    ended: dict[str, int] = field(factory=dict, init=False)
    """Those that were ended and not begun again, and by which act."""
    bundles: dict[str, Accepted] = field(factory=dict, init=False)
    """What was accepted last, and not before a restore: that keeps what was heard since the backup."""

    def take(self, position: int, entry: Entry) -> None:
        """One entry."""
        if entry.act is Act.RESTORE:
            self.bundles.clear()
        if entry.act is not Act.ADMINISTER or not entry.object.startswith(_PLACE):
            return
        name, facts = entry.object.removeprefix(_PLACE), entry.facts
        did = facts.get("did")
        if did == "end-federation":
            self.begun.pop(name, None)
            self.ended[name] = position
        elif did == "federate":
            self.begun[name] = Told(position, facts)
            self.ended.pop(name, None)
        if did in _DEEDS:
            self.bundles.pop(name, None)
            if digest := facts.get("bundle"):
                self.bundles[name] = Accepted(position, digest)
