"""What endpoints tell the CA of their pins, so that a change of its keys can be held against them before.

Whoever may read trust may tell, and nothing proves it true. It is only shown, and used to refuse: a liar holds up a
rotation at most, until an administrator forces it.
"""

from collections.abc import Callable, Collection

from attrs import define, field

from pki.spiffe import TrustDomain
from pki.svid.pin_conflict import BrokenPin, ReportedPins, broken_by
from pki.svid.spki_pin import PinSet, SpkiHash
from twisted_mesh.ca.report_table import ReportTable
from twisted_mesh.runtime.clock import Now


@define(eq=False, repr=False)
class PinReports:
    """The pins of the moment, as far as they were told."""

    seconds: Callable[[], float]
    """A clock that does not go back."""
    now: Now
    trust_domain: TrustDomain
    _table: ReportTable[PinSet] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._table = ReportTable(self.seconds)

    def tell(self, who: str, instance: str, pins: PinSet) -> None:
        """Take in what an endpoint says, in place of what it said before: ``instance`` of whoever has proven ``who``.

        What there is no room for is passed over.
        """
        self._table.tell(who, instance, pins or None, sum(map(len, pins.lines)))

    def all(self) -> list[ReportedPins]:
        """Who has told, and what, in order."""
        return [ReportedPins(who, pins) for who, pins in self._table.all()]

    def broken_by(self, keys: Collection[SpkiHash]) -> tuple[BrokenPin, ...]:
        """Enforced rules that our workloads break where these are the keys above them, the root's too."""
        return broken_by(self.all(), keys, self.trust_domain, self.now())
