"""A judgement: a verdict on a chain, and for how long the same would be said again."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cached_property

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.svid.chain import Verdict
from pki.svid.x509svid import validity_of
from twisted_mesh.trust.connections import ProvenPath

_ABOUT_THE_CLOCK = {Code.EXPIRED, Code.NOT_YET_VALID}
#: A refusal that says how late it is here holds for so long.
_MOMENT = timedelta(seconds=1)


@frozen(eq=False, repr=False)
class Judgement:
    """A verdict; it would be given again between two moments, as long as what is believed is the same."""

    verdict: Verdict
    presented: tuple[bytes, ...]
    """What it was given on, in DER, leaf first: the same object for all who present the same. Empty for a refusal that
    is remembered, since strangers choose what they send."""
    changes: int
    """How often the judge's trust had been swapped by then."""
    since: datetime
    until: datetime
    """Both inclusive."""

    def holds_at(self, now: datetime) -> bool:
        """Whether it is the verdict then, as far as the clock is concerned."""
        return self.since <= now <= self.until

    @cached_property
    def path(self) -> ProvenPath | None:
        """What the peer's right rests on; None where no name was found."""
        spiffe_id = self.verdict.spiffe_id
        return None if spiffe_id is None else ProvenPath(spiffe_id, self.verdict.path)


def span(
    verdict: Verdict,
    looked_at: Iterable[x509.Certificate],
    now: datetime,
    turns: Iterable[datetime] = (),
) -> tuple[datetime, datetime]:
    """Between which moments a verdict of ``now`` is the verdict: until one of the certificates begins or ends.

    Of all that were looked at, whichever of them the verdict rests on: another path may be the better one then.
    ``turns`` are other moments from which on it may be another: at which pins begin to be reported only, say. Raises
    :class:`ValueError` for dates that are none.
    """
    since, until = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    moments = [*turns]
    for validity in map(validity_of, looked_at):
        moments += (validity.not_before, validity.not_after + datetime.resolution)
    for begins in moments:
        if begins <= now:
            since = max(since, begins)
        else:
            until = min(until, begins - datetime.resolution)
    if any(problem.code in _ABOUT_THE_CLOCK for problem in verdict.problems):
        since, until = now, min(until, now + _MOMENT)
    return since, until
