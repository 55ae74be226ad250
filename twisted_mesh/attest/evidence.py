"""What comes with a request and could say who asks, and what an attestor makes of it."""

from typing import Any

from attrs import field, frozen

from pki.policy.selector import Selector, UnknownSelector
from pki.spiffe import SpiffeId
from twisted_mesh.stores.records import IssuedToken


@frozen
class Evidence:
    """All that a request brings along. Its ``repr`` shows no secret."""

    transport: Any
    """The connection, as its protocol was given it."""
    token: str | None = field(default=None, repr=False)
    """A join token, as the caller wrote it."""


@frozen
class Attestation:
    """What one attestor has proven of a caller. All of it may be shown and logged."""

    proof: str
    """For the log and the audit: ``unix:uid:1000``, ``x509:spiffe://…``, ``token:4f1d…``."""
    selectors: frozenset[Selector]
    spiffe_id: SpiffeId | None = None
    serial: int | None = None
    """Of the SVID that was presented."""
    entry: str | None = None
    """The only registration entry that counts: the one that a join token is bound to."""
    uid: int | None = None
    """The user on the other end of a unix socket."""
    token: IssuedToken | None = None
    """The join token: whether this key may use it, and whether this is the request it was spent
    with, is for whoever reads the request."""


def seen(kind: str, *values: object) -> frozenset[Selector]:
    """A selector for each value; none for a value that no registration entry could name."""
    found = set()
    for value in values:
        try:
            found.add(Selector.parse(f"{kind}:{value}"))
        except UnknownSelector:
            continue
    return frozenset(found)
