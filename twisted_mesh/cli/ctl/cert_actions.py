"""What ``mesh-ctl cert list``, ``show`` and ``export`` do."""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, BinaryIO

import msgspec
from attrs import frozen

from pki.serial import parse_serial, serial_pairs
from pki.validity import parse_rfc3339, spoken_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import CertificateRow
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.status import DONE
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import writing_whole

#: What a whole row takes with an ID of some length; where a terminal has less, a row says less.
_WHOLE_WIDTH = 160
_BRIEF_HEADINGS = ("SERIAL", "STATUS", "LEFT", "SPIFFE ID")
#: What is taken by all of a brief row but the ID: a serial in hex, a status, a short time.
_BRIEF_WIDTH = 32 + 2 + 7 + 2 + 5 + 2
#: More of an ID than that says nothing in one line.
_LONGEST_TAIL = 76
_HEADINGS = ("SERIAL", "SPIFFE ID", "STATUS", "ISSUED", "EXPIRES", "ENTRY")


def cells(row: CertificateRow) -> tuple[str | None, ...]:
    """A row of the table."""
    times = row.issued_at, row.expires_at
    return (pairs(row.serial), row.spiffe_id, row.status, *times, row.entry)


def _brief_cells(row: CertificateRow, width: int, now: datetime) -> tuple[str | None, ...]:
    """The same in one line of a terminal: the serial as a double click takes it whole, the ID's end."""
    left = parse_rfc3339(row.expires_at) - now
    lasts = left > timedelta(0) and row.status == "valid"
    return (
        row.serial,
        row.status,
        spoken_duration(left).replace(" days", "d").split()[0] if lasts else None,
        output.tail(row.spiffe_id, min(max(width - _BRIEF_WIDTH, 14), _LONGEST_TAIL)),
    )


def connections_on(row: CertificateRow) -> int:
    """How many open connections are known to rest on it."""
    return row.connections if isinstance(row.connections, int) else 0


def pairs(serial: str) -> str:
    """A serial as people see it."""
    return serial_pairs(parse_serial(serial))


def put_rows(rows: list[CertificateRow], *, headed: bool = True, connections: bool = False) -> None:
    """Print the table, or go on with one that was begun."""
    if connections:
        full = [(*cells(row), str(connections_on(row))) for row in rows]
        output.put_table((*_HEADINGS, "CONNECTIONS"), full, headed=headed)
        return
    width = output.terminal_width()
    if width is not None and width < _WHOLE_WIDTH:
        now = wall_clock()
        brief = [_brief_cells(row, width, now) for row in rows]
        output.put_table(_BRIEF_HEADINGS, brief, headed=headed)
        return
    output.put_table(_HEADINGS, map(cells, rows), headed=headed)


@frozen
class Listing:
    """``cert list``."""

    filters: Mapping[str, str]
    most: int | None
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        found = output.JsonList()
        count, more = 0, False
        async for page in administration.pages(self.filters, self.most):
            more = page.next is not None
            if self.as_json:
                found.put(map(msgspec.to_builtins, page.certificates))
            elif page.certificates:
                put_rows(page.certificates, headed=not count)
            count += len(page.certificates)
        if self.as_json:
            found.end()
        elif not count:
            output.say("there is no such certificate")
        if more:
            output.say(f"these are the newest {count:,}: --all shows all, --limit more")
        return DONE


@frozen
class Showing:
    """``cert show``."""

    serial: int
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        row = await administration.certificate(self.serial)
        if self.as_json:
            output.put_json(msgspec.to_builtins(row))
            return DONE
        facts: output.Facts = {
            "serial": pairs(row.serial),
            "SPIFFE ID": row.spiffe_id,
            "subject": row.subject,
            "status": row.status,
            "issued": row.issued_at,
            "expires": row.expires_at,
        }
        if row.revoked_at is not None:
            facts["revoked"] = f"{row.revoked_at} ({row.reason})"
        facts |= {"issuer key": row.issuer, "key": row.key, "requester": row.requester}
        facts |= {"entry": row.entry, "connections": str(connections_on(row))}
        output.put_facts({name: value for name, value in facts.items() if value})
        if row.certificate is not None:
            output.put(f"\n{row.certificate.strip()}")
        else:
            output.say("the certificate itself is not there: it was never signed, or is pruned")
        return DONE


@frozen
class Exporting:
    """``cert export``: nobody sees a part of it."""

    path: Path | None

    async def __call__(self, administration: Administration) -> int:
        count = 0
        with self._file() as file:
            async for page in administration.pages({}, None):
                for row in page.certificates:
                    # Who is connected is nothing of the record's.
                    kept = msgspec.structs.replace(row, connections=msgspec.UNSET)
                    file.write(msgspec.json.encode(kept) + b"\n")
                count += len(page.certificates)
            if self.path is None:
                _copy(file)
        if self.path is not None:
            output.say(f"{output.counted(count, 'certificate')} written to {self.path}")
        return DONE

    def _file(self) -> AbstractContextManager[IO[bytes]]:
        if self.path is not None:
            return writing_whole(self.path, 0o600)
        return nullcontext(tempfile.TemporaryFile())


def _copy(file: IO[bytes]) -> None:
    file.seek(0)
    if sys.stdout is not None:
        out: BinaryIO = sys.stdout.buffer
        shutil.copyfileobj(file, out)
        out.flush()
