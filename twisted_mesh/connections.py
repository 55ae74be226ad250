"""Who is connected now: every live connection with the peer, certificate and generation it was let in by."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

from attrs import define, field, frozen
from cryptography import x509

from pki.keys import key_id
from pki.spiffe import SpiffeId
from twisted_mesh.events import TlsFacts


@frozen
class Peer:
    """The proven identity at the other end, and how it was proven."""

    spiffe_id: SpiffeId
    path: tuple[x509.Certificate, ...]
    """Leaf to root, as judged."""
    tls: TlsFacts
    generation: int
    """Of the trust it was judged under."""

    @property
    def leaf(self) -> x509.Certificate:
        return self.path[0]

    def credentials(self) -> Iterable[tuple[str, int]]:
        """Issuer and serial of each certificate below the root: if one is revoked, so is the peer."""
        return _credentials(self.path)


@lru_cache(maxsize=1024)
def _credentials(path: tuple[x509.Certificate, ...]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (key_id(issuer.public_key()), cert.serial_number) for cert, issuer in pairwise(path)
    )


class LiveConnection(Protocol):
    @property
    def peer(self) -> Peer | None: ...

    def sever(self, reason: str) -> None:
        """Close it now, because of ``reason``."""


@define(eq=False)
class ConnectionRegistry:
    """Live connections, found by the certificates that they rest on."""

    _live: set[LiveConnection] = field(factory=set, init=False)
    _by_credential: dict[tuple[str, int], set[LiveConnection]] = field(factory=dict, init=False)
    _when_empty: list[Callable[[], None]] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._live)

    def add(self, connection: LiveConnection) -> None:
        self._live.add(connection)
        for credential in self._credentials(connection):
            self._by_credential.setdefault(credential, set()).add(connection)

    def discard(self, connection: LiveConnection) -> None:
        if connection not in self._live:
            return
        self._live.remove(connection)
        for credential in self._credentials(connection):
            resting = self._by_credential[credential]
            resting.discard(connection)
            if not resting:
                del self._by_credential[credential]
        if not self._live:
            waiting, self._when_empty = self._when_empty, []
            for call in waiting:
                call()

    def resting_on(self, issuer: str, serial: int) -> tuple[LiveConnection, ...]:
        """The connections that a certificate's revocation ends."""
        return tuple(self._by_credential.get((issuer, serial), ()))

    def all(self) -> tuple[LiveConnection, ...]:
        return tuple(self._live)

    def when_empty(self, call: Callable[[], None]) -> None:
        """Call once nobody is connected any more; at once if nobody is."""
        if self._live:
            self._when_empty.append(call)
        else:
            call()

    @staticmethod
    def _credentials(connection: LiveConnection) -> Iterable[tuple[str, int]]:
        return connection.peer.credentials() if connection.peer else ()
