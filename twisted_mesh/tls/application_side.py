"""What an application sees of its connection: a transport like any of Twisted's over TLS."""

from collections.abc import Iterable
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IConsumer,
    INegotiated,
    IProducer,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from zope.interface import implementer


@implementer(ISSLTransport, ITCPTransport, INegotiated, IPushProducer, IConsumer)
class ApplicationSide:
    """All of it goes straight to TLS below; whoever judges the peer decides when it closes."""

    TLS = True
    transport: Any
    """TLS below."""
    is_paused = False
    """Whether nothing that the peer says is delivered."""

    def write(self, data: bytes) -> None:
        """Say it to the peer."""
        self.transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Say all of it to the peer."""
        self.transport.writeSequence(data)

    def lend(self) -> None:
        """Deliver what the peer says by the short way, where there is one: it is overwritten once it was heard."""
        lend = getattr(self.transport, "lend", None)
        if lend is not None and not self.is_paused:
            lend()
            self.resumeProducing()

    def loseConnection(self) -> None:
        """Close once all is said."""
        self.transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """Say no more once all is said; the peer may go on."""
        self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Deliver nothing that the peer says."""
        self.is_paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver what the peer says."""
        self.is_paused = False
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """As :meth:`loseConnection`."""
        self.loseConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have it produce as fast as the peer reads."""
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """It has produced all."""
        self.transport.unregisterProducer()

    def getHandle(self) -> SSL.Connection:
        """OpenSSL's end: to be asked, and never to read or write."""
        handle: SSL.Connection = self.transport.getHandle()
        return handle

    def getPeerCertificate(self) -> X509 | None:
        """What the peer has shown, good or not."""
        return self.getHandle().get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """By ALPN; None where nothing was agreed on."""
        return self.getHandle().get_alpn_proto_negotiated() or None

    def getHost(self) -> Any:
        """Our address."""
        return self.transport.getHost()

    def getPeer(self) -> Any:
        """The peer's address."""
        return self.transport.getPeer()

    def getTcpNoDelay(self) -> bool:
        """Whether small pieces are sent at once."""
        return bool(self.transport.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See tcp(7)."""
        self.transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether a silent connection is probed."""
        return bool(self.transport.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See tcp(7)."""
        self.transport.setTcpKeepAlive(enabled)
