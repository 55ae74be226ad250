"""What receipts of logs cost in a handshake: where a certificate is seen for the first time, and where it is known."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import define, frozen
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from pki.svid.x509svid import Purpose
from tests.bench.tables import Table, Value, median
from twisted_mesh.testing import Member, MemoryCa, MemoryLog
from twisted_mesh.tls import verify
from twisted_mesh.tls.contexts import Role, build_context
from twisted_mesh.tls.verify import Handshake

#: Receipts in a certificate, and how many of them are demanded.
SHOWN = ((0, 0), (1, 1), (2, 0), (2, 2), (3, 2), (4, 4))
_RECORD = 1 << 16


@frozen
class Cost:
    """Seconds of one handshake, of both ends."""

    first: float
    """Nobody has seen the other's certificate before."""
    known: float


@define(eq=False)
class Pair:
    """Two endpoints that demand the same of each other."""

    member: Member
    client: SSL.Context
    server: SSL.Context

    @classmethod
    def of(cls, shown: int, demanded: int) -> "Pair":
        ca = MemoryCa(logs=[MemoryLog(f"log-{number}") for number in range(max(shown, demanded))])
        svid = ca.issue("shop", logs=ca.logs[:shown])
        member = ca.member("shop", svid=svid, require_sct=demanded)
        roots = member.judge.trust.bundles.all_roots
        return cls(
            member,
            build_context(svid, roots, Role(serves=False)),
            build_context(svid, roots, Role(serves=True)),
        )

    @property
    def bytes(self) -> int:
        """Of the leaf."""
        return len(self.member.svid.leaf.public_bytes(Encoding.DER))

    def cost(self) -> Cost:
        judge = self.member.judge
        judge.trust = judge.trust  # which forgets every verdict
        return Cost(self.shake_hands(), self.shake_hands())

    def shake_hands(self) -> float:
        """Once, in memory. Raises where it does not come about."""
        ends = SSL.Connection(self.client, None), SSL.Connection(self.server, None)
        for end, purpose in zip(ends, (Purpose.SERVER, Purpose.CLIENT), strict=True):
            verify.begin(end, Handshake(self.member.judge, purpose))
        ends[0].set_connect_state()
        ends[1].set_accept_state()
        began, left = time.thread_time(), [0, 1]
        for _ in range(8):
            for at in tuple(left):
                with suppress(SSL.WantReadError):
                    ends[at].do_handshake()
                    left.remove(at)
            for at in (0, 1):
                with suppress(SSL.WantReadError):
                    ends[1 - at].bio_write(ends[at].bio_read(_RECORD))
            if not left:
                return time.thread_time() - began
        raise AssertionError("the handshake did not come to its end")


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.0) -> Table:
    """Each pair in turn, ``rounds`` times."""
    pairs = {words: Pair.of(*words) for words in SHOWN}
    found: dict[tuple[int, int], list[Cost]] = {words: [] for words in pairs}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for words, pair in pairs.items():
            until = time.monotonic() + seconds
            pair.cost()
            costs = [pair.cost()]
            while time.monotonic() < until:
                costs.append(pair.cost())
            found[words].append(
                Cost(median([one.first for one in costs]), median([one.known for one in costs]))
            )
    base = (0, 0)
    rows = tuple(_row(words, pairs, found, base) for words in pairs)
    return Table(
        "ct-handshake",
        "mutual handshakes of two endpoints in memory, on one core, by receipts (SCTs) shown and demanded of each",
        rows,
        (
            "Microseconds are of both ends together: each judges the other. First: nobody has seen the other's",
            "certificate before. Known: a verdict on it is remembered. Keys are P-256, of logs too; bytes are of one",
            "leaf.",
        ),
    )


def _row(
    words: tuple[int, int],
    pairs: dict[tuple[int, int], Pair],
    found: dict[tuple[int, int], list[Cost]],
    base: tuple[int, int],
) -> dict[str, Value]:
    shown, demanded = words
    first, known = (
        {of: median([getattr(one, which) for one in found[of]]) for of in (words, base)}
        for which in ("first", "known")
    )
    return {
        "receipts shown / demanded": f"{shown} / {demanded}",
        "us, first": round(first[words] * 1e6),
        "more": round((first[words] - first[base]) * 1e6),
        "us, known": round(known[words] * 1e6),
        "more, known": round((known[words] - known[base]) * 1e6),
        "leaf, bytes": pairs[words].bytes,
        "more bytes": pairs[words].bytes - pairs[base].bytes,
    }
