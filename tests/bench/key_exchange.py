"""Mutual handshakes on one core, by what certificates are signed with and by which group keys are exchanged."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import define, frozen
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffePattern
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import MESH, Mesh, mesh
from tests.bench.tables import Table, Value, median
from twisted_mesh.tls import verify
from twisted_mesh.tls.contexts import Role, build_context
from twisted_mesh.tls.groups import offer
from twisted_mesh.tls.verify import Handshake
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

#: Of a leaf, and of the issuing CA and the root above it.
SIGNED = (
    ("ec-p256", "ec-p256"),
    ("ec-p256", "ml-dsa-44"),
    ("ec-p256", "ml-dsa-65"),
    ("ml-dsa-44", "ml-dsa-44"),
    ("ml-dsa-65", "ml-dsa-65"),
    ("ml-dsa-87", "ml-dsa-87"),
)
CLASSICAL, HYBRID, LARGEST = "x25519", "X25519MLKEM768", "SecP384r1MLKEM1024"
GROUPS = (CLASSICAL, HYBRID, LARGEST)
_RECORD = 1 << 16


@frozen
class Cost:
    """What one handshake costs."""

    client: float
    """Seconds of its end."""
    server: float
    sent: int
    """Bytes of TLS that the client sends."""
    received: int
    certificates: int
    """Bytes of the chain that each shows."""
    bare: float = 0.0
    """Seconds of both ends by OpenSSL alone."""


@define(eq=False)
class Pair:
    """Both ends, as endpoints of the mesh are. Who was judged is remembered, as in a running one."""

    svid: X509Svid
    client: SSL.Context
    server: SSL.Context
    judge: Judge
    bare: tuple[SSL.Context, SSL.Context]
    """The same with OpenSSL's verdict alone."""

    @classmethod
    def of(cls, leaf: KeyAlgorithm, above: KeyAlgorithm, group: str) -> "Pair":
        now = datetime.now(UTC).replace(microsecond=0)
        keys = (MemoryKey.generate(above), MemoryKey.generate(above))
        made: Mesh = mesh(MESH, *keys, now=now - timedelta(hours=1))
        key = MemoryKey.generate(leaf)
        spiffe_id = MESH.member("service", "backend")
        draft = made.issuing.draft(key.public_key, spiffe_id, now, timedelta(hours=1))
        signed = asyncio.run(made.issuing.sign(draft))
        svid = X509Svid.assemble((signed, *made.issuing.intermediates), key)
        allow = (SpiffePattern.parse("spiffe://mesh.local/**"),)
        judge = Judge(lambda: now, Trust(made.bundles, allow=allow))
        contexts = []
        for serves in (False, True, False, True):
            role = Role(serves, requires_pq=group != CLASSICAL)
            context = build_context(svid, made.bundles.all_roots, role)
            if not offer(context, group):
                raise ValueError(group)
            contexts.append(context)
        client, server, *bare = contexts
        for context in bare:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        return cls(svid, client, server, judge, (bare[0], bare[1]))

    def shake_hands(self, contexts: tuple[SSL.Context, SSL.Context] | None = None) -> Cost:
        """Once, in memory. Raises where it does not come about."""
        client, server = contexts or (self.client, self.server)
        ends = SSL.Connection(client, None), SSL.Connection(server, None)
        purposes = Purpose.SERVER, Purpose.CLIENT
        for end, purpose in zip(ends, purposes, strict=True):
            verify.begin(end, Handshake(self.judge, purpose))
        ends[0].set_connect_state()
        ends[1].set_accept_state()
        spent, sent, left = [0.0, 0.0], [0, 0], [0, 1]
        for _ in range(8):
            for at in (0, 1):
                if at in left:
                    began = time.thread_time()
                    with suppress(SSL.WantReadError):
                        ends[at].do_handshake()
                        left.remove(at)
                    spent[at] += time.thread_time() - began
                with suppress(SSL.WantReadError):
                    records = ends[at].bio_read(_RECORD)
                    sent[at] += len(records)
                    ends[1 - at].bio_write(records)
            if not left:
                break
        if left:
            raise AssertionError("the handshake did not come to its end")
        shown = sum(len(cert.public_bytes(Encoding.DER)) for cert in self.svid.chain)
        return Cost(*spent, *sent, shown)


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.0) -> Table:
    """Each pair in turn, ``rounds`` times."""
    pairs = {
        (leaf, above, group): Pair.of(KeyAlgorithm(leaf), KeyAlgorithm(above), group)
        for leaf, above in SIGNED
        for group in GROUPS
    }
    found: dict[tuple[str, str, str], list[Cost]] = {words: [] for words in pairs}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for words, pair in pairs.items():
            pair.shake_hands()
            until = time.monotonic() + seconds
            costs, bare = [pair.shake_hands()], [pair.shake_hands(pair.bare)]
            while time.monotonic() < until:
                costs.append(pair.shake_hands())
                bare.append(pair.shake_hands(pair.bare))
            found[words].append(
                Cost(
                    median([cost.client for cost in costs]),
                    median([cost.server for cost in costs]),
                    costs[-1].sent,
                    costs[-1].received,
                    costs[-1].certificates,
                    median([cost.client + cost.server for cost in bare]),
                )
            )
    return Table(
        "pq",
        "mutual handshakes of two endpoints in memory, on one core; certificates are signed by, and keys exchanged by",
        tuple(_row(words, costs) for words, costs in found.items()),
        (
            "Both ends judge each other's chain as the mesh does, and remember it; nothing is resumed. Each end's",
            "rate is of one core that does nothing else, without TCP and HTTP. The chain is a leaf and its issuing",
            "CA; the root is not sent. Bytes are of TLS records, without those of TCP and IP.",
        ),
    )


def _row(words: tuple[str, str, str], costs: list[Cost]) -> dict[str, Value]:
    leaf, above, group = words
    client, server = (median([getattr(one, end) for one in costs]) for end in ("client", "server"))
    last = costs[-1]
    return {
        "leaf / CAs / group": f"{leaf} / {above} / {group}",
        "server handshakes/s": round(1 / server),
        "client handshakes/s": round(1 / client),
        "us of both": round((client + server) * 1e6),
        "by OpenSSL alone": round(median([one.bare for one in costs]) * 1e6),
        "bytes sent by client": last.sent,
        "bytes sent by server": last.received,
        "chain, bytes": last.certificates,
    }
