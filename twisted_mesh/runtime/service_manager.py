"""What a service manager is told of this process, in the words of sd_notify(3): nothing where nobody asks for it."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from attrs import frozen

#: The shortest time between two signs of life that is heeded.
_SOONEST = 0.1


@frozen
class ServiceManager:
    """Where it is told."""

    address: str = ""
    """Of a datagram socket; empty where nobody listens."""
    watchdog: float = 0.0
    """Seconds between two signs of life; 0 where none are wanted."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "ServiceManager":
        """As systemd says it in the environment."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        wanted, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
        seconds = 0.0
        if wanted.isascii() and wanted.isdigit() and whose in (None, "", str(os.getpid())):
            seconds = int(wanted) / 1e6 / 2
        return cls(address, max(_SOONEST, seconds) if seconds else 0.0)

    def ready(self) -> None:
        """It serves, or does so again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads its files again; :meth:`ready` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It stops."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """A sign of life."""
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self.address:
            return
        place = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        # Whoever is told is not waited for, and may be gone.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.setblocking(False)
            teller.sendto(text.encode(), place)
