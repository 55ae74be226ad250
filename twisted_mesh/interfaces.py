"""Interfaces of the reactor side, and the values that go through them.

Each has one conformance suite that every implementation runs.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)
from zope.interface import Attribute, Interface

from pki.errors import Problem
from pki.keys import KeyAlgorithm
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import X509Svid


class IReactor(
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
):
    """What an installed reactor of Twisted provides, for whoever connects, listens or resolves names.

    Whoever needs its clock alone asks for an ``IReactorTime``, which a test can move.
    """


@frozen
class Identity:
    """What a source obtains: an SVID with its key, and whom its holder may believe.

    What go-spiffe calls an X509Context, and the Workload API an X509SVIDResponse.
    """

    svid: X509Svid
    bundles: BundleSet
    issued_at: datetime
    """When it was asked for, by our own clock: what its life is counted from."""
    clocks: str = ""
    """How the clock of whoever issued it was to ours, for people; empty where that is not known."""
    is_of_all: bool = True
    """Whether nobody is to be believed but these; False where only updates speak of other trust domains."""


@frozen
class TrustUpdate:
    """What a source says of whom to believe, and whom no longer."""

    revocations: Sequence[Revocation] = ()
    more: bool = False
    """Whether there may be others already: then what is known is not up to date yet."""
    waited: float = 0.0
    """For how many seconds after the question this is still the latest, at least."""
    bundles: BundleSet | None = None
    """All that the source has believed now; None where nothing is said of it."""
    issuers: Mapping[str, tuple[x509.Certificate, ...]] | None = None
    """By the key id of an issuing CA: what is to be served above its leaves, without the root; None as above."""
    withdrawn_pins: frozenset[str] = frozenset()
    """``sha256/BASE64`` of the SPKIs of CA keys that are not to be relied on any more."""
    withdrawn_logs: frozenset[str] = frozenset()
    """Ids, in base64, of logs whose receipts are not to be counted any more."""


class ISource(Interface):
    """Where an identity comes from: a CA by its API, the CA itself, later SPIRE or files."""

    where: str = Attribute("For people: ``unix:/…``, ``https://…``.")

    async def obtain(algorithm: KeyAlgorithm) -> Identity:
        """A fresh key, a certificate for it and the bundles. Raises :class:`pki.errors.PkiError`."""

    async def revocations(wait: int = 0) -> TrustUpdate:
        """What has been revoked since the last call. Raises :class:`pki.errors.PkiError`.

        Where nothing has, a source may take ``wait`` seconds until something is.
        """

    def renewed() -> None:
        """A fresh identity is in use: nothing is to be asked under the last one any more."""


class IRevocationListener(Interface):
    """Whoever acts on what is revoked: cuts connections, wakes who waits, answers anew, publishes."""

    def revoked(revocations: Sequence[Revocation]) -> None:
        """These are revoked, and that is durable.

        They may be known here already, or none. What takes a while is begun and not waited for:
        others hear of it after this one.
        """


class IFinishing(Interface):
    """A protocol that can end where nothing is torn apart: after the request that it is serving."""

    def finish(refusal: Problem | None = None) -> None:
        """Begin nothing any more, finish what has begun, then ``loseConnection``; at once where there is nothing.

        With a ``pki.Problem`` for a refusal the peer is no longer who it was: what is still arriving
        from it has not begun. Whoever calls bounds the time.
        """


class IContextFactory(Interface):
    """Hands out the TLS context of the moment."""

    def current() -> tuple[SSL.Context, int] | None:
        """The context and its generation, for a new connection; None while there is none."""
