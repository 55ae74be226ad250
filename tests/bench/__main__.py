"""``python -m tests.bench [NAME...]``: measure, and print the figures; after ``report``, write the page of them."""

import argparse
import os
import platform
import ssl
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from OpenSSL import SSL

from tests.bench import (
    attestation,
    ct_handshakes,
    ct_log,
    ct_monitor,
    distrust,
    federation,
    handshakes,
    keep_alive,
    key_exchange,
    keys,
    logged,
    memory,
    policy,
    publishing,
    record,
    refusals,
    report,
    return_crowd,
    revocation,
    revocation_feed,
    revocation_handshakes,
    revocation_live,
    revocation_many,
    root_rotation,
    rotation,
    rotation_fast,
    sidecar,
    signatures,
    start,
    stdlib,
    strangers,
    streams,
    waiting,
    workers,
    workloads,
)
from tests.bench.processes import LOAD_CORE, SERVER_CORE
from tests.bench.tables import RENDERERS
from tests.running import CHECKOUT

_MEASURES = {
    "handshakes": handshakes.measure,
    "keep-alive": keep_alive.measure,
    "signatures": signatures.measure,
    "start": start.measure,
    "record": record.measure,
    "ct-log": ct_log.measure,
    "ct-monitor": ct_monitor.measure,
    "rotation": rotation.measure,
    "root-rotation": root_rotation.measure,
    "distrust": distrust.measure,
    "rotation-fast": rotation_fast.measure,
    "streams": streams.measure,
    "memory": memory.measure,
    "revocation": revocation.measure,
    "revocation-handshakes": revocation_handshakes.measure,
    "revocation-live": revocation_live.measure,
    "revocation-many": revocation_many.measure,
    "revocation-feed": revocation_feed.measure,
    "waiting": waiting.measure,
    "return-crowd": return_crowd.measure,
    "publishing": publishing.measure,
    "policy": policy.measure,
    "pq": key_exchange.measure,
    "ct-handshake": ct_handshakes.measure,
    "federation": federation.measure,
    "strangers": strangers.measure,
    "refusals": refusals.measure,
    "attestation": attestation.measure,
    "stdlib": stdlib.measure,
    "workers": workers.measure,
    "workloads": workloads.measure,
    "ct-issuance": logged.measure,
    "keys-signatures": keys.measure,
    "keys-sign": keys.measure_signing,
    "sidecar-bulk": sidecar.measure_bulk,
    "sidecar-trips": sidecar.measure_trips,
    "sidecar-connections": sidecar.measure_connections,
    "sidecar-idle": sidecar.measure_idle,
}
#: One word for several.
_GROUPS = {
    word: tuple(name for name in _MEASURES if name.startswith(f"{word}-"))
    for word in ("sidecar", "keys")
}


#: Where a report's sections are kept between two runs.
_KEPT = CHECKOUT / ".bench"


def _conditions(rounds: int) -> dict[str, str]:
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    cores = (
        "the system cannot pin processes"
        if SERVER_CORE is None
        else f"the measured on core {SERVER_CORE}, the load on core {LOAD_CORE}"
    )
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {cores}; load before {load}",
        "software": f"Python {platform.python_version()}, Twisted {version('Twisted')}, "
        f"pyOpenSSL with {SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()}, ssl with {ssl.OPENSSL_VERSION}",
        "method": f"medians of {rounds} rounds, contestants in turn; CPU is user and system time of what is measured",
    }


def _spelled_out(names: Sequence[str]) -> list[str]:
    return [one for name in names for one in _GROUPS.get(name, (name,))]


def _report(options: argparse.Namespace) -> int:
    names = _spelled_out(options.names[1:])
    known = [section.name for section in report.sections()]
    if unknown := set(names) - set(known):
        sys.stderr.write(
            f"no sections: {', '.join(sorted(unknown))}; there are {', '.join(known)}\n"
        )
        return 2

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        page = report.run(
            options.kept / "quick" if options.quick else options.kept,
            Path(directory),
            _conditions(1 if options.quick else report.ROUNDS),
            say,
            names=names,
            again=options.again or options.quick,
            quick=options.quick,
        )
    print(page)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*_MEASURES, *_GROUPS)))
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--format", choices=tuple(RENDERERS), default="text")
    parser.add_argument(
        "--quick", action="store_true", help="report: that it works, in two minutes"
    )
    parser.add_argument("--again", action="store_true", help="report: measure what is kept anew")
    parser.add_argument("--kept", type=Path, default=_KEPT, help="report: where results are kept")
    options = parser.parse_intermixed_args()
    # An installation has its modules compiled: what is measured is started as from there.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.names[:1] == ["report"]:
        return _report(options)
    names = _spelled_out(options.names)
    if set(names) - set(_MEASURES) or not 1 <= options.rounds <= 20:
        parser.error(f"names are {', '.join((*_MEASURES, *_GROUPS))}; rounds are 1 to 20")
    conditions = _conditions(options.rounds)
    tables = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for name in names or _MEASURES:

            def say(text: str, name: str = name) -> None:
                print(f"{name}: {text}", file=sys.stderr, flush=True)

            tables.append(_MEASURES[name](Path(directory) / name, options.rounds, say))
    sys.stdout.write(RENDERERS[options.format](tables, conditions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
