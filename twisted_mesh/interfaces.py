"""Interfaces of the reactor side, and the values that go through them.

Each has one conformance suite that every implementation runs.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IReactorCore,
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
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
):
    """What an installed reactor of Twisted provides, for whoever connects, listens or resolves names.

    Whoever needs its clock alone asks for an ``IReactorTime``, which a test can move.
    """


class IStore(Interface):
    """The one door to state: frozen commands, each atomic with its preconditions.

    An implementation never blocks the reactor.
    """

    def start() -> None:
        """Open what is to be opened. Synchronous. Raises StoreError with one sentence."""

    def stop() -> Any:
        """Finish what is under way and close. A Deferred that fires when done."""

    def apply(command: Any) -> Any:
        """Do one of ``stores.commands.Command``: a Deferred of its result once that is durable."""

    def find(serial: int) -> Any:
        """A Deferred of the IssuedCertificate of that serial, or None."""

    def find_all(serials: Any) -> Any:
        """A Deferred of the IssuedCertificates of these serials that there are, without their ``der``."""

    def find_request(request_key: str) -> Any:
        """A Deferred of the IssuedCertificate that a request was answered with, or None."""

    def list(query: Any) -> Any:
        """A Deferred of the Page that a Query asks for. Errs with BadCursor."""

    def feed(after: int) -> Any:
        """A Deferred of the Feed of revocations after a position; all where ``after`` is 0 or unknown."""

    def last_crl(issuer: str) -> Any:
        """A Deferred of the issuer's LastCrl, or None where no number was given out."""

    def open_intents(limit: int = 1000) -> Any:
        """A Deferred of the oldest OpenIntents."""

    def entries() -> Any:
        """A Deferred of all StoredEntries, the oldest first. Errs with StoreError where one cannot be read."""

    def tokens() -> Any:
        """A Deferred of all IssuedTokens, the newest first."""

    def find_token(digest: bytes) -> Any:
        """A Deferred of the IssuedToken with that SHA-256, spent, revoked and expired ones too, or None."""

    def last_act() -> Any:
        """A Deferred of how many acts are recorded, and of the last one's time in microseconds, or None."""

    def log_head() -> Any:
        """A Deferred of the LogHead: what of the audit log is in its Merkle tree."""

    def log_entries(start: int, limit: int) -> Any:
        """A Deferred of a list of LoggedEntry from a position on, and of the tree's size."""

    def checkpoints(start: int, limit: int) -> Any:
        """A Deferred of a list of (size, note), by size, from a size on."""

    def last_checkpoint() -> Any:
        """A Deferred of the newest (size, note), or None."""

    def inclusion_proof(position: int, size: int) -> Any:
        """A Deferred of the hashes that prove an entry's place in the tree of that size."""

    def consistency_proof(first: int, second: int) -> Any:
        """A Deferred of the hashes that prove that one tree extends the other."""


@frozen
class Identity:
    """What a source obtains: an SVID with its key, and whom its holder may believe.

    What go-spiffe calls an X509Context, and the Workload API an X509SVIDResponse.
    """

    svid: X509Svid
    bundles: BundleSet
    issued_at: datetime
    """When it was asked for, by our own clock: what its life is counted from."""


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
