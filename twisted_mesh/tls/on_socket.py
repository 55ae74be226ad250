"""What is asked of a transport and answered by the socket below it."""

from typing import Any


class OnSocket:
    """The part of a transport that is the socket's."""

    _below: Any

    def fileno(self) -> int:
        """Of the socket: to be asked, and never to read or write."""
        return int(self._below.fileno())

    def getHost(self) -> Any:
        """Our address."""
        return self._below.getHost()

    def getPeer(self) -> Any:
        """The peer's address."""
        return self._below.getPeer()

    def getTcpNoDelay(self) -> bool:
        """Whether small pieces are sent at once: they are."""
        return bool(self._below.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See tcp(7)."""
        self._below.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether a silent connection is probed."""
        return bool(self._below.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See tcp(7)."""
        self._below.setTcpKeepAlive(enabled)
