"""``python -m tests.bench [NAME...]``: measure, and print the figures."""

import argparse
import os
import platform
import ssl
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from OpenSSL import SSL

from tests.bench import (
    handshakes,
    publishing,
    record,
    refusals,
    revocation,
    revocation_feed,
    revocation_handshakes,
    revocation_live,
    revocation_many,
    rotation,
    signatures,
    start,
    stdlib,
    strangers,
    waiting,
    workloads,
)
from tests.bench.processes import LOAD_CORE, SERVER_CORE
from tests.bench.tables import RENDERERS

_MEASURES = {
    "handshakes": handshakes.measure,
    "signatures": signatures.measure,
    "start": start.measure,
    "record": record.measure,
    "rotation": rotation.measure,
    "revocation": revocation.measure,
    "revocation-handshakes": revocation_handshakes.measure,
    "revocation-live": revocation_live.measure,
    "revocation-many": revocation_many.measure,
    "revocation-feed": revocation_feed.measure,
    "waiting": waiting.measure,
    "publishing": publishing.measure,
    "strangers": strangers.measure,
    "refusals": refusals.measure,
    "stdlib": stdlib.measure,
    "workloads": workloads.measure,
}


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_MEASURES))
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--format", choices=tuple(RENDERERS), default="text")
    options = parser.parse_args()
    unknown = set(options.names) - set(_MEASURES)
    if unknown or not 1 <= options.rounds <= 20:
        parser.error(f"names are {', '.join(_MEASURES)}; rounds are 1 to 20")
    conditions = _conditions(options.rounds)
    tables = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for name in options.names or _MEASURES:

            def say(text: str, name: str = name) -> None:
                print(f"{name}: {text}", file=sys.stderr, flush=True)

            tables.append(_MEASURES[name](Path(directory) / name, options.rounds, say))
    sys.stdout.write(RENDERERS[options.format](tables, conditions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
