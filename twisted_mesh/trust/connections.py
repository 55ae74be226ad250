"""Who is connected now: every live connection with the peer, certificate and generation it was let in by.

When what is believed changes, or time passes, the connections that this may concern are found by
what they rest on, whoever else is connected.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.errors import Problem
from pki.keys import key_id
from pki.spiffe import SpiffeId
from pki.svid.path import with_issuers
from twisted_mesh.runtime.log import TlsFacts

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: So many moments more than are needed may stay in the heap before it is made anew.
_SLACK = 64


@frozen(eq=False, repr=False)
class ProvenPath:
    """A path that was judged good, and what follows from it alone: made once, however many connections rest on it."""

    spiffe_id: SpiffeId
    certificates: tuple[x509.Certificate, ...]
    """Leaf to root, as judged."""

    @cached_property
    def keys(self) -> "IndexKeys":
        """What a connection is found by that rests on it."""
        leaf, above = self.certificates[0], _keys_above(self.certificates[1:])
        return IndexKeys(
            ((above.issuer, leaf.serial_number), *above.credentials),
            above.root,
            self.spiffe_id,
            min(leaf.not_valid_after_utc, above.ends_at),
        )

    @cached_property
    def shown(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Subjects and serials, for people."""
        return TlsFacts.chain_of(self.certificates)


@frozen(slots=False)
class Peer:
    """The proven identity at the other end, and how it was proven."""

    spiffe_id: SpiffeId
    path: tuple[x509.Certificate, ...]
    """Leaf to root, as judged."""
    _tls: TlsFacts | Callable[[], TlsFacts] = field(eq=False, repr=False)
    generation: int
    """Of the trust it was judged under."""
    _known: ProvenPath | None = field(default=None, eq=False, repr=False)
    """The same path, where it is shared with others."""

    @cached_property
    def proven(self) -> ProvenPath:
        """What the peer's right rests on, with what is known of it already."""
        known = self._known
        if known and known.certificates is self.path and known.spiffe_id == self.spiffe_id:
            return known
        return ProvenPath(self.spiffe_id, self.path)

    @cached_property
    def tls(self) -> TlsFacts:
        """The TLS facts, which are asked for when somebody wants to know."""
        return self._tls if isinstance(self._tls, TlsFacts) else self._tls()

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that carries the SPIFFE ID."""
        return self.path[0]

    def credentials(self) -> Iterable[tuple[str, int]]:
        """Issuer and serial of each certificate, the root's too: if one is revoked, so is the peer."""
        return IndexKeys.of(self).credentials


@frozen(cache_hash=True)
class IndexKeys:
    """What a connection is found by: all that its peer's right to be connected rests on."""

    credentials: tuple[tuple[str, int], ...]
    """Issuer and serial of each certificate; the root is its own issuer."""
    root: bytes
    """The SHA-256 of the certificate that the path ends in."""
    spiffe_id: SpiffeId
    ends_at: datetime
    """When the first certificate of the path ends."""

    @classmethod
    def of(cls, peer: Peer) -> "IndexKeys":
        """Those of a peer, by the path that it was judged by."""
        return peer.proven.keys


@frozen
class _Above:
    """What stands above a leaf, which is the same for many of them."""

    issuer: str
    credentials: tuple[tuple[str, int], ...]
    root: bytes
    ends_at: datetime


@lru_cache(maxsize=256)
def _keys_above(issuers: tuple[x509.Certificate, ...]) -> _Above:
    return _Above(
        key_id(issuers[0].public_key()),
        tuple((key_id(up.public_key()), cert.serial_number) for cert, up in with_issuers(issuers)),
        fingerprint(issuers[-1]),
        min(cert.not_valid_after_utc for cert in issuers),
    )


def fingerprint(root: x509.Certificate) -> bytes:
    """The SHA-256 of a certificate, 32 bytes."""
    return root.fingerprint(hashes.SHA256())


class LiveConnection(Protocol):
    """A connection as the registry and the reviewer know it."""

    @property
    def peer(self) -> Peer | None:
        """Who has proven itself at the other end; None where nobody has."""

    def objections(self) -> Sequence[Problem]:
        """Judge the peer again: every reason why it would not be let in now."""

    def hear_no_more(self, problems: Sequence[Problem]) -> None:
        """Take nothing new from the peer from now on, because of ``problems``; :meth:`sever` follows."""

    def sever(self, problems: Sequence[Problem]) -> None:
        """Take nothing new from the peer, and close, because of ``problems``."""


@define(eq=False, repr=False)
class _Index(Generic[K, V]):
    """Things by what they share. Most share it with none, and get by without a set."""

    _found: dict[K, V | set[V]] = field(factory=dict)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[K]:
        return iter(self._found)

    def __contains__(self, key: K) -> bool:
        return key in self._found

    def get(self, key: K) -> tuple[V, ...]:
        found = self._found.get(key)
        if found is None:
            return ()
        return tuple(found) if isinstance(found, set) else (found,)

    def add(self, key: K, one: V) -> None:
        found = self._found.get(key)
        if found is None:
            self._found[key] = one
        elif isinstance(found, set):
            found.add(one)
        else:
            self._found[key] = {found, one}

    def discard(self, key: K, one: V) -> None:
        found = self._found.get(key)
        if isinstance(found, set):
            found.discard(one)
            if found:
                return
        self._found.pop(key, None)


@define(eq=False, repr=False)
class ConnectionIndex:
    """Live connections, found by what they rest on: many by the same, as one peer has several of them."""

    _live: dict[LiveConnection, IndexKeys | None] = field(factory=dict, init=False)
    _resting: _Index[IndexKeys, LiveConnection] = field(factory=_Index, init=False)
    _by_credential: _Index[tuple[str, int], IndexKeys] = field(factory=_Index, init=False)
    _by_root: _Index[bytes, IndexKeys] = field(factory=_Index, init=False)
    _by_id: _Index[SpiffeId, IndexKeys] = field(factory=_Index, init=False)
    _by_end: _Index[datetime, IndexKeys] = field(factory=_Index, init=False)
    _ends: list[datetime] = field(factory=list, init=False)
    """A heap: every moment of ``_by_end``, and some of connections that are gone."""
    _when_empty: list[Callable[[], None]] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, connection: LiveConnection) -> bool:
        return connection in self._live

    def add(self, connection: LiveConnection) -> None:
        """Remember it by what its peer rests on; anew where that has changed."""
        peer = connection.peer
        keys = IndexKeys.of(peer) if peer else None
        if connection in self._live:
            if self._live[connection] == keys:
                return
            self.release(connection)
        self._live[connection] = keys
        if keys is None:
            return
        if keys not in self._resting:
            self._enter(keys)
        self._resting.add(keys, connection)

    def _enter(self, keys: IndexKeys) -> None:
        for credential in keys.credentials:
            self._by_credential.add(credential, keys)
        self._by_root.add(keys.root, keys)
        self._by_id.add(keys.spiffe_id, keys)
        if keys.ends_at not in self._by_end:
            heappush(self._ends, keys.ends_at)
        self._by_end.add(keys.ends_at, keys)

    def release(self, connection: LiveConnection) -> None:
        """It is still open, but on its way out, and found by nothing any more."""
        keys = self._live.get(connection)
        if keys is None:
            return
        self._live[connection] = None
        self._resting.discard(keys, connection)
        if keys not in self._resting:
            self._strike(keys)

    def _strike(self, keys: IndexKeys) -> None:
        for credential in keys.credentials:
            self._by_credential.discard(credential, keys)
        self._by_root.discard(keys.root, keys)
        self._by_id.discard(keys.spiffe_id, keys)
        self._by_end.discard(keys.ends_at, keys)
        if len(self._ends) > 2 * len(self._by_end) + _SLACK:
            self._ends = list(self._by_end)
            heapify(self._ends)

    def discard(self, connection: LiveConnection) -> None:
        """It is closed. Once the last one is, whoever waits by :meth:`when_empty` is called."""
        if connection not in self._live:
            return
        self.release(connection)
        del self._live[connection]
        if not self._live:
            waiting, self._when_empty = self._when_empty, []
            for call in waiting:
                call()

    def _connections(self, found: Iterable[IndexKeys]) -> tuple[LiveConnection, ...]:
        return tuple(one for keys in found for one in self._resting.get(keys))

    def resting_on(self, issuer: str, serial: int) -> tuple[LiveConnection, ...]:
        """The connections that a certificate's revocation ends."""
        return self._connections(self._by_credential.get((issuer, serial)))

    @property
    def credentials(self) -> Sequence[tuple[str, int]]:
        """Issuer and serial of every certificate that somebody rests on."""
        return tuple(self._by_credential)

    @property
    def credential_count(self) -> int:
        """How many certificates there are that somebody rests on."""
        return len(self._by_credential)

    def counts(self) -> Iterator[tuple[tuple[str, int], int]]:
        """Issuer and serial of each of these, and how many connections rest on it."""
        for credential in self._by_credential:
            yield credential, len(self.resting_on(*credential))

    def ending_in(self, root: x509.Certificate) -> tuple[LiveConnection, ...]:
        """The connections whose path ends in that root."""
        return self._connections(self._by_root.get(fingerprint(root)))

    def of(self, spiffe_id: SpiffeId) -> tuple[LiveConnection, ...]:
        """The connections of that SPIFFE ID."""
        return self._connections(self._by_id.get(spiffe_id))

    @property
    def spiffe_ids(self) -> Sequence[SpiffeId]:
        """Who is connected, each once."""
        return tuple(self._by_id)

    def ended(self, now: datetime) -> tuple[LiveConnection, ...]:
        """The connections that rest on a certificate which has ended before ``now``."""
        over = set()
        while self._ends and self._ends[0] < now:
            moment = heappop(self._ends)
            if moment in self._by_end:
                over.add(moment)
        for moment in over:  # until whoever asks has discarded or released them
            heappush(self._ends, moment)
        return self._connections(keys for moment in over for keys in self._by_end.get(moment))

    def all(self) -> tuple[LiveConnection, ...]:
        """Every connection, those on their way out too."""
        return tuple(self._live)

    def when_empty(self, call: Callable[[], None]) -> None:
        """Call once nobody is connected any more; at once if nobody is."""
        if self._live:
            self._when_empty.append(call)
        else:
            call()


@define(eq=False, repr=False)
class ConnectionRegistry(ConnectionIndex):
    """Who is connected, and beside them those who are only told why they are not: nobody counts these."""

    turned_away: ConnectionIndex = field(factory=ConnectionIndex, init=False)
