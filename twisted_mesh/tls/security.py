"""What a connection is secured by, and who is told about it."""

import typing
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from attrs import Factory as Made
from attrs import field, frozen
from cryptography import x509
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.errors import Problem
from twisted_mesh.limits.connection_limit import ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.limits.rate_limit import LimitedLog, Rate
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls.contexts import ContextFactory
from twisted_mesh.tls.turned_away import Explain
from twisted_mesh.trust.connections import ConnectionRegistry, Peer
from twisted_mesh.trust.judge import Judge

#: Seconds within which a handshake must be done, whatever trickles in.
HANDSHAKE_TIMEOUT = 10.0
#: Lines of the log for peers that are refused: they must not be able to fill the disk. All are counted.
_LOGGED = Rate(20, 100)


class PeerCheck(typing.Protocol):
    """Something that is found out about each peer, by asking somebody else: OCSP, say."""

    async def objections(
        self, path: Sequence[x509.Certificate], seconds: float
    ) -> Sequence[Problem]:
        """Why the leaf of a judged path is not let in, found out within so many seconds. Never raises."""


@frozen
class Security:
    """What a connection is secured by, and who is told about it."""

    contexts: ContextFactory
    judge: Judge
    clock: IReactorTime
    registry: ConnectionRegistry = field(factory=ConnectionRegistry)
    log: Logger = field(factory=partial(logger, "tls"))
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    connection_limit: ConnectionLimit | None = None
    """How many may be connected to what listens; None for no bound."""
    holder_of: Callable[[Peer], Awaitable[str | None]] | None = None
    """Who answers for a peer's connections when room is wanted, if not its ID alone. Never raises."""
    handshake_budget: HandshakeBudget | None = None
    """How much of the reactor's time those may have whose handshakes fail; None for no bound."""
    requires_staple: bool = False
    """Whether servers must staple an OCSP answer to their certificates."""
    looks_first: bool = True
    """Whether who connects judges its own chain before it shows it."""
    meets_ca: bool = False
    """Whether the other side is our CA, which renews what somebody else has revoked the issuer of."""
    explain: Explain | None = None
    """How a caller that is merely not allowed is told so inside TLS; None sends it an alert."""
    explains: Callable[[], bool] = lambda: True
    """Whether that is so at the moment: a port may change the language that it speaks."""
    leaf_checks: Sequence[Callable[[x509.Certificate], Problem | None]] = ()
    """What the certificates of those who call must satisfy besides."""
    peer_check: PeerCheck | None = None
    """What is to be found out about a peer whose certificate is good, before it gets in."""
    refusals: LimitedLog = field(
        init=False,
        default=Made(
            lambda self: LimitedLog(self.log, _LOGGED, self.clock.seconds), takes_self=True
        ),
    )
    """Where refused peers are logged."""
