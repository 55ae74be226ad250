"""Interfaces of the reactor side; each has one conformance suite that every implementation runs."""

from typing import Any

from zope.interface import Attribute, Interface


class IStore(Interface):
    """The one door to state: frozen commands, each atomic with its preconditions.

    An implementation never blocks the reactor.
    """

    def start() -> None:
        """Open what is to be opened. Synchronous. Raises StoreError with one sentence."""

    def stop() -> Any:
        """Finish what is under way and close. A Deferred that fires when done."""

    def apply(command: Any) -> Any:
        """Do one of ``stores.records.Command``: a Deferred of its result once that is durable."""

    def find(serial: int) -> Any:
        """A Deferred of the IssuedCertificate of that serial, or None."""

    def list(query: Any) -> Any:
        """A Deferred of the Page that a Query asks for. Errs with BadCursor."""

    def feed(after: int) -> Any:
        """A Deferred of the Feed of revocations after a position; all where ``after`` is 0 or unknown."""


class ISource(Interface):
    """Where an identity comes from: a CA by its API, the CA itself, later SPIRE or files."""

    where = Attribute("For people: ``unix:/…``, ``https://…``.")

    async def obtain(algorithm: Any) -> Any:
        """A fresh key, a certificate for it and the bundles, as ``sources.Identity``."""

    async def revocations() -> Any:
        """What has been revoked since the last call, as a list of ``pki.Revocation``."""


class IContextFactory(Interface):
    """Hands out the TLS context of the moment."""

    def current() -> Any:
        """The (OpenSSL.SSL.Context, generation) for a new connection; None while there is none."""
