"""What a listener has carried, counted by reason and by peer, with few labels whoever calls."""

from collections import Counter
from collections.abc import Iterator, Mapping

from attrs import define, field

#: Peers that are counted one by one; those who come later are counted together.
_MOST_PEERS = 200
OTHERS = "other"
NOBODY = "none"
"""Who has proven nothing."""

#: Why a connection ended, or never began. Others count as ``other``.
REASONS = (
    "done",
    "caller-reset",
    "target-reset",
    "target-unreachable",
    "target-refused",
    "idle",
    "lifetime",
    "close-timeout",
    "severed",
    "drain",
    "broken",
    # Of a listener of HTTP, where a message could be read in two ways or is not whole.
    "refused",
    "target-broken",
    "caller-cut-short",
    "target-cut-short",
)


@define
class OfPeer:
    """What one peer has had carried."""

    connections: int = 0
    open: int = 0
    from_caller: int = 0
    """Bytes of connections that have ended."""
    from_target: int = 0


@define(eq=False)
class Tally:
    """Of one listener, since the start."""

    peers: dict[str, OfPeer] = field(factory=dict)
    ended: "Counter[str]" = field(factory=lambda: Counter(dict.fromkeys((*REASONS, OTHERS), 0)))
    """By reason."""
    plain: "Counter[str]" = field(factory=Counter)
    """Callers of a permissive listener that speak no TLS, by their address."""
    refused: "Counter[str]" = field(factory=Counter)
    """Far sides that were not let in, by the code of the first problem."""

    def peer(self, name: str) -> OfPeer:
        """Where connections of that peer are counted."""
        found = self.peers.get(name)
        if found is None:
            if len(self.peers) >= _MOST_PEERS:
                name = OTHERS
            found = self.peers.setdefault(name, OfPeer())
        return found

    def plain_caller(self, host: str) -> None:
        """A caller without TLS has come."""
        if host not in self.plain and len(self.plain) >= _MOST_PEERS:
            host = OTHERS
        self.plain[host] += 1

    def end(self, reason: str) -> None:
        """A connection has ended."""
        self.ended[reason if reason in REASONS else OTHERS] += 1

    @property
    def total(self) -> OfPeer:
        """Of all peers together."""
        whole = OfPeer()
        for one in self.peers.values():
            whole.connections += one.connections
            whole.open += one.open
            whole.from_caller += one.from_caller
            whole.from_target += one.from_target
        return whole

    def shown(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Each peer with its counts, for people."""
        for name, one in self.peers.items():
            yield (
                name,
                {
                    "connections": one.connections,
                    "open": one.open,
                    "from_caller_bytes": one.from_caller,
                    "from_target_bytes": one.from_target,
                },
            )
