"""Who gives an identity in place of a CA of ours: a source that an agent also asks for what it asks a CA."""

from collections.abc import Callable

from zope.interface import Attribute

from pki.errors import PkiError, Problem
from twisted_mesh.api.messages import PublishedCrls
from twisted_mesh.interfaces import ISource


class IProvider(ISource):
    """A source that says by itself when there is something new. SPIRE's agent is one, and our own."""

    on_fresh: Callable[[], object] = Attribute(
        "To be set: called when there is another certificate, or when a trouble is over."
    )
    on_loss: Callable[[PkiError], object] = Attribute(
        "To be set: called when the certificate in use is to be used no more."
    )

    async def crls() -> PublishedCrls:
        """The CRLs of the moment; none where it has none."""

    def doubt() -> Problem | None:
        """Why it may not be known who is revoked."""

    def too_slow() -> PkiError:
        """What is to be said where nobody waits for an answer any longer."""

    def compared_clocks() -> str:
        """How its clock is to ours, for people; empty where that is not known."""

    def close() -> None:
        """Ask no more. May be said again."""
