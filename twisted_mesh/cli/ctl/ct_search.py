"""What ``mesh-ctl ct search`` does: a question to the index of ct watch, or to logs that are read for it."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import frozen
from twisted.internet.defer import maybeDeferred

from pki.serial import parse_serial, serial_pairs
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.cli import running
from twisted_mesh.cli.ctl import ct_sources, output
from twisted_mesh.cli.ctl.cert_filters import issuer_meant, key_meant
from twisted_mesh.cli.ctl.ct_watch import index_path
from twisted_mesh.cli.running import reactor
from twisted_mesh.cli.status import DONE, UNREACHABLE
from twisted_mesh.monitor import search as searching
from twisted_mesh.monitor.database import Database
from twisted_mesh.monitor.follower import Follower
from twisted_mesh.monitor.index import Index
from twisted_mesh.monitor.name_pattern import NamePattern
from twisted_mesh.monitor.search import RECORDED, Found, Query
from twisted_mesh.monitor.watch_list import WatchList
from twisted_mesh.runtime.clock import wall_clock

_HEADINGS = ("LOGGED", "SERIAL", "NAMES", "ENDS", "LOG", "ENTRY", "ON RECORD")


@frozen
class SearchOptions:
    """The options, understood."""

    index: Path
    ct_logs_key: str | None
    copy: str | None
    query: Query
    timeout: float

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "SearchOptions":
        """Raises :class:`pki.errors.PkiError`."""
        name, serial, log = options["name"], options["serial"], options["log"]
        after, before = options["after"], options["before"]
        return cls(
            index_path(options["state_dir"], options["index"]),
            options["ct_logs_key"],
            options["copy"],
            Query(
                NamePattern.parse(name) if name else None,
                parse_serial(serial) if serial else None,
                bytes.fromhex(issuer_meant(options["issuer"])) if options["issuer"] else None,
                bytes.fromhex(key_meant(options["key"])) if options["key"] else None,
                parse_rfc3339(after) if after else None,
                parse_rfc3339(before) if before else None,
                log.removeprefix("https://").rstrip("/") if log else None,
                None if options["all_"] else options["limit"],
            ),
            ct_sources.seconds(options["timeout"], "--timeout"),
        )


def search(options: SearchOptions, list_path: Path | None, *, as_json: bool) -> int:
    """``ct search``; its exit status."""
    if list_path is None:
        database = Database(options.index)
        database.read()
        with closing(database):
            return _put(database, options.query, as_json=as_json)
    logs = ct_sources.readable(ct_sources.logs_of(list_path, options.ct_logs_key))
    ct_sources.refuse_many(logs, options.copy)

    async def work() -> int:
        with TemporaryDirectory(prefix="mesh-ct-") as directory:
            database = Database(Path(directory) / "index.db")
            database.own()
            with closing(database):
                status = DONE
                for log in logs:
                    source = ct_sources.source_of(log, options.copy, options.timeout, reactor)
                    follower = Follower(
                        source, Index(database), maybeDeferred, WatchList(), wall_clock
                    )
                    if not await follower.turn():
                        output.say(
                            f"{log.origin} could not be read to its end: what is shown is not all"
                        )
                        status = UNREACHABLE
                _put(database, options.query, as_json=as_json)
                return status

    return running.run("mesh-ctl", work)


def _put(database: Database, query: Query, *, as_json: bool) -> int:
    found = list(searching.search(database, query))
    if as_json:
        printed = output.JsonList()
        printed.put(one.as_json() for one in found)
        printed.end()
    elif found:
        output.put_table(_HEADINGS, map(_cells, found))
    else:
        output.say("there is no such certificate in the logs")
    if query.limit is not None and len(found) == query.limit:
        output.say(f"these are the newest {query.limit:,}: --all shows all, --limit more")
    return DONE


def _cells(found: Found) -> tuple[str | None, ...]:
    return (
        rfc3339(found.at),
        serial_pairs(found.serial),
        ", ".join(found.names),
        rfc3339(found.not_after),
        found.origin,
        str(found.position),
        RECORDED[found.recorded],
    )
