"""Plain connections that send what they are given at once, where the system takes it."""

from typing import Any

from twisted.internet import tcp


class PromptServer(tcp.Server):
    """A connection that a port has accepted.

    Twisted's own sends in the next turn of the reactor, and asks the system twice more for that: to be told when there
    is room, and not to be told any more. For a short answer there nearly always is.
    """

    def write(self, data: bytes) -> None:
        """Send it; what the system does not take now, when it does."""
        waits = self._tempDataLen or self.dataBuffer
        if self.connected and not (waits or self._writeDisconnected or self._aborting):
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0  # Twisted tries it in a turn of its own, and ends the connection where it cannot be sent
            data = data[sent:]
        if data:
            super().write(data)


def send_promptly(port: Any) -> None:
    """Have what ``port`` accepts be such. One of another kind stays as it is."""
    if type(port) is tcp.Port and port.transport is tcp.Server:
        port.transport = PromptServer
