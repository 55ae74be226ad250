"""Which of the identities that a Workload API has for this process is the one that is wanted."""

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from pki.codes import Code
from pki.errors import Problem, Refused
from pki.spiffe import SpiffeId, TrustDomain

#: So many names are told of those that are there.
_NAMED = 5


class NotOurs(Refused):
    """The identity that is wanted is none of those that the Workload API has for us."""

    code = Code.NOT_AUTHORIZED


class Choice(Protocol):
    """Which of several identities is ours."""

    def __call__(self, ids: Sequence[SpiffeId]) -> int:
        """Its place among ``ids``, of which there is one at least. Raises :class:`NotOurs`."""
        ...


@frozen
class Chosen:
    """By its ID; else the first of a trust domain; else the first, which is the default (Workload API section 5.3)."""

    spiffe_id: SpiffeId | None = None
    trust_domain: TrustDomain | None = None

    def __call__(self, ids: Sequence[SpiffeId]) -> int:
        """See :class:`Choice`."""
        for place, spiffe_id in enumerate(ids):
            if self._is_it(spiffe_id):
                return place
        wanted = str(self.spiffe_id or f"an identity of {self.trust_domain}")
        there = ", ".join(map(str, ids[:_NAMED])) + (", …" if len(ids) > _NAMED else "")
        raise NotOurs(
            [
                Problem(
                    Code.NOT_AUTHORIZED,
                    f"the Workload API has no {wanted} for this process; it has {there}",
                    "ask for one of these with --spiffe-id, or have an entry made for the one that is wanted",
                )
            ]
        )

    def _is_it(self, spiffe_id: SpiffeId) -> bool:
        if self.spiffe_id is not None:
            return spiffe_id == self.spiffe_id
        return self.trust_domain in (None, spiffe_id.trust_domain)
