"""The numbers of CRLs: each issuer's only grow, whatever becomes of the record."""

import os
from datetime import datetime
from pathlib import Path

import msgspec
from attrs import define, field

from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.memory import Memory
from twisted_mesh.stores.commands import TakeCrlNumber
from twisted_mesh.stores.interface import IStore

_log = logger("ca")
_MILLISECONDS = 1000


@define(eq=False, repr=False)
class CrlNumbers:
    """Gives out numbers, each durable in the record before it is used.

    A record may come back from a backup, and then knows less than was served. So the highest number is
    in a file beside it too, and none is under the time of day in milliseconds, which tells even a CA
    whose disk was lost where to go on.
    """

    store: IStore
    now: Now
    path: Path | None = None
    """The file; None for a CA that keeps nothing."""
    memory: Memory = field(init=False)
    """Whether that can be written."""
    _highest: dict[str, int] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "crl-numbers",
            self.path,
            "The numbers of CRLs are in the record only, and go back with it if it is restored",
            event="crl-numbers-not-kept",
            again=self._keep,
            log=_log,
        )

    def recall(self) -> None:
        """Read the file. What is in one that is damaged is lost, and the other two go on."""
        if self.path is None or not self.path.exists():
            return
        try:
            told = msgspec.json.decode(self.path.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            _log.warn(
                "{path} cannot be read: the record and the clock say where the numbers of CRLs go on",
                event="crl-numbers-unreadable",
                path=str(self.path),
            )
            return
        for issuer, number in told.items():
            self.saw(issuer, number)

    def saw(self, issuer: str, number: int) -> None:
        """This number has been used."""
        self._highest[issuer] = max(number, self.highest(issuer))

    def highest(self, issuer: str) -> int:
        """What is known to have been used; 0 where nothing is."""
        return self._highest.get(issuer, 0)

    async def take(self, issuer: str, served: datetime | None) -> int:
        """The next one. ``served`` is when the latest CRL was made that was served. Raises StoreError."""
        least = max(self.highest(issuer) + 1, int(self.now().timestamp() * _MILLISECONDS))
        number = await self.store.apply(TakeCrlNumber(issuer, least, served))
        self.saw(issuer, number)
        self._keep()
        return number

    def _keep(self) -> None:
        """As well as it can be done. Not flushed: after a power cut the record is there, and knows."""
        if self.path is None:
            return
        temporary = self.path.with_name(f".{self.path.name}.new")
        with self.memory.writing():
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600),
                "wb",
            ) as file:
                file.write(msgspec.json.encode(self._highest))
            temporary.replace(self.path)
