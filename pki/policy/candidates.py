"""How near registration entries come to letting a caller in, and what each of them lacks."""

from collections.abc import Collection, Iterable, Iterator

from attrs import frozen

from pki.issuing.csr import IssuanceRequest
from pki.keys import KeyAlgorithm
from pki.policy.entry import RegistrationEntry
from pki.policy.id_template import CannotFill
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from pki.svid.names import IPAddress
from pki.validity import format_duration


@frozen
class Shortfall:
    """One reason why an entry does not buy what was asked for."""

    rule: str
    """The name of the rule that says so."""
    detail: str


def shortfalls(
    entry: RegistrationEntry,
    request: IssuanceRequest | None,
    selectors: Collection[Selector],
    *,
    renews: bool = False,
) -> Iterator[Shortfall]:
    """Why ``entry`` does not buy ``request``, whoever asks with ``selectors``; nothing where it does.

    Whether the entry's own selectors were seen is not asked here. Without a request: why it buys
    nothing at all. ``renews``: the caller has that ID already, bought by this entry, and what a
    template was filled with then need not be seen again.
    """
    if not (renews and request is not None and entry.spiffe_id.covers(request.spiffe_id)):
        try:
            bought = entry.spiffe_id.fill(selectors)
            if request is not None and not bought.matches(request.spiffe_id):
                yield Shortfall("ids-granted-only", f"it buys {bought}, not {request.spiffe_id}")
        except CannotFill as error:
            yield Shortfall("ids-granted-only", f"it buys {entry.spiffe_id}, and {error}")
    if request is not None:
        yield from _beyond(entry, request)


def _beyond(entry: RegistrationEntry, request: IssuanceRequest) -> Iterator[Shortfall]:
    """What is asked for besides the ID and is not granted."""
    extra = [
        str(name)
        for name in (*request.dns_names, *request.ip_addresses)
        if not (
            grants_by_default(request.spiffe_id, name)
            or name in entry.dns_names
            or name in entry.ip_addresses
        )
    ]
    if extra:
        yield Shortfall("names-granted-only", f"it does not grant the names {', '.join(extra)}")
    if request.ttl is not None and entry.max_ttl is not None and request.ttl > entry.max_ttl:
        asked, most = format_duration(request.ttl), format_duration(entry.max_ttl)
        yield Shortfall("ttl-granted-only", f"it grants {most} at most, not {asked}")
    if entry.keys and KeyAlgorithm.of(request.public_key) not in entry.keys:
        allowed = ", ".join(entry.keys)
        yield Shortfall("keys-granted-only", f"it takes keys of {allowed} only")


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
class Candidate:
    """How near an entry comes to letting a caller in."""

    entry: RegistrationEntry
    missing: tuple[Selector, ...]
    """Its selectors that were not seen."""
    shortfalls: tuple[Shortfall, ...]
    """What else is in the way."""

    @property
    def lets_in(self) -> bool:
        """Whether nothing is in the way."""
        return not self.missing and not self.shortfalls

    @property
    def distance(self) -> tuple[int, int, bool, str]:
        """To sort by, the nearest first; where two are as near, one literal ID is the more exact right."""
        missing, entry = len(self.missing), self.entry
        return missing + len(self.shortfalls), missing, not entry.spiffe_id.is_literal, entry.id


def candidates(
    entries: Iterable[RegistrationEntry],
    request: IssuanceRequest | None,
    selectors: Collection[Selector],
    renewed: str | None = None,
) -> list[Candidate]:
    """Every entry with what keeps it from buying ``request``, the nearest first.

    Without a request: with what keeps it from buying anything. ``renewed`` is the entry that bought
    the caller's own certificate, where that is for the ID that is asked for again: it needs no
    other selectors now, unless it wants all of them each time.
    """
    found = []
    for entry in entries:
        renews = entry.id == renewed and not entry.reattest
        missing = () if renews else entry.missing(selectors)
        reasons = tuple(shortfalls(entry, request, selectors, renews=renews))
        found.append(Candidate(entry, missing, reasons))
    return sorted(found, key=lambda candidate: candidate.distance)
