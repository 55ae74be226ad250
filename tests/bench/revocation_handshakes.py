"""What revocation adds to a handshake: a set of a million in the real verify callback, and a staple."""

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import evolve

from pki.serial import new_serial
from pki.svid import chain
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from tests.answers import answer, delegate
from tests.authorities import DAY
from tests.bench.tables import Table, Value, median
from tests.twisted_mesh.tls.wires import TODAY, End, converse, good_svid, home
from twisted_mesh.tls import verify

_HELD, _TURNS = 1_000_000, 200
_NONE, _MILLION = "none revoked", f"{_HELD:,} revoked"
_BARE, _KNOWN, _NEW = "nothing stapled", "stapled", "stapled, new to the client"

Figures = dict[str, list[float]]


def measure(where: Path, rounds: int, say: Callable[[str], None]) -> Table:
    say(f"revoking {_HELD:,}")
    none = RevocationSet()
    million = none.merged(_revocations(), TODAY)
    gc.freeze()  # what the million cost the collector is told elsewhere
    say("judging clients")
    judged, looked = _judging({_NONE: none, _MILLION: million}, rounds * _TURNS)
    say("stapling")
    shaken = _shaking(rounds * _TURNS)
    gc.unfreeze()
    rows = [
        *_rows("the verify callback", judged, _NONE),
        *_rows("of that, looking up what is revoked", looked, _NONE),
        *_rows("a handshake, both ends", shaken, _BARE),
    ]
    notes = (
        f"CPU time of {rounds * _TURNS} handshakes each, in turns; both ends in one process over memory, EC P-256,",
        "chain of two, no verdict remembered. The callback is the server's: all of it, parsing among it. What is",
        "added is told by the fastest quarters, which other work on the machine disturbs least.",
    )
    title = "what revocation adds to a handshake"
    return Table("revocation-handshakes", title, tuple(rows), notes)


def _rows(what: str, figures: Figures, base: str) -> Iterator[dict[str, Value]]:
    for name, spent in figures.items():
        added = _fastest(spent) - _fastest(figures[base])
        yield {
            "what": f"{what}, {name}",
            "median us": round(median(spent), 1),
            "added us": round(added, 1),
        }


def _fastest(spent: list[float]) -> float:
    """The median of the fastest half: of all, the quarter."""
    return median(sorted(spent)[: len(spent) // 2])


def _revocations() -> Iterator[Revocation]:
    issuer = home().issuing.key_id
    for _ in range(_HELD):
        yield Revocation(issuer, new_serial(), TODAY, Reason.UNSPECIFIED, TODAY + DAY)


def _judging(sets: dict[str, RevocationSet], turns: int) -> tuple[Figures, Figures]:
    """Microseconds of each verdict in the server's callback, on a client that was never seen before.

    And those of them in which it is looked up what is revoked, of the leaf and of its issuing CA.
    """
    client, server = End(False), End(True)
    spent: Figures = {name: [] for name in sets}
    looking: Figures = {name: [] for name in sets}
    told: list[float] = []
    looked: list[float] = []
    decide, look = verify.Handshake.decide, chain._revoked

    def timed(handshake: verify.Handshake, presented: Any) -> bool:
        looked.clear()
        start = time.thread_time_ns()
        verdict = decide(handshake, presented)
        if handshake.judge is server.judge:
            told[:] = (time.thread_time_ns() - start) / 1e3, sum(looked)
        return verdict

    def look_timed(cert: Any, issuer: Any, held: RevocationSet) -> list[Any]:
        if issuer is not None:
            issuer.public_key()  # parsed once in each verdict, whoever asks first
        start = time.thread_time_ns()
        found = list(look(cert, issuer, held))
        looked.append((time.thread_time_ns() - start) / 1e3)
        return found

    verify.Handshake.decide = timed  # type: ignore[method-assign]
    chain._revoked = look_timed  # type: ignore[assignment]
    try:
        for turn in range(turns):
            # Neither is always the one that finds the other's leavings in the caches.
            for name, held in sorted(sets.items(), reverse=bool(turn % 2)):
                server.judge.trust = evolve(server.judge.trust, revocations=held)
                converse(client, server)
                spent[name].append(told[0])
                looking[name].append(told[1])
    finally:
        verify.Handshake.decide = decide  # type: ignore[method-assign]
        chain._revoked = look
    return spent, looking


def _shaking(turns: int) -> Figures:
    """Microseconds of each handshake, both ends and the making of the connection included."""
    svid = good_svid()
    staple = answer(home(), svid.leaf, TODAY, responder=delegate(home(), TODAY))
    client, bare, stapling = End(False), End(True, svid), End(True, svid)
    stapling.staples.hold(svid.leaf, staple, TODAY + DAY)
    spent: Figures = {_BARE: [], _KNOWN: [], _NEW: []}
    for _ in range(turns):
        for name, figures in spent.items():
            if name == _NEW:
                client.judge._answers.clear()
            start = time.thread_time_ns()
            converse(client, bare if name == _BARE else stapling)
            figures.append((time.thread_time_ns() - start) / 1e3)
    return spent
