"""What ``mesh-ctl ct watch`` does: a monitor put together, and run on the reactor."""

import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from pki.errors import Malformed, PkiError, discreet
from pki.validity import parse_duration, parse_rfc3339
from twisted_mesh import observe
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.blocking_client import result_of
from twisted_mesh.cli import running
from twisted_mesh.cli.ctl import ct_sources, output
from twisted_mesh.cli.ctl.cert_filters import issuer_meant, key_meant
from twisted_mesh.cli.ctl.options import Reach, state_path
from twisted_mesh.cli.ctl.session import client_of
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.running import reactor
from twisted_mesh.cli.status import DONE, REFUSED, UNREACHABLE
from twisted_mesh.files.command import Command
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.http.status_site import StatusSite
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.monitor.database import Database
from twisted_mesh.monitor.figures import Figures
from twisted_mesh.monitor.follower import Follower, Patience
from twisted_mesh.monitor.index import Index
from twisted_mesh.monitor.name_pattern import NamePattern
from twisted_mesh.monitor.record_comparison import RecordComparison, RecordRules
from twisted_mesh.monitor.source import Source
from twisted_mesh.monitor.telling import Commands, LogLines, Sink, Teller
from twisted_mesh.monitor.watch_list import ExpectedKeys, WatchList
from twisted_mesh.monitor.watching import Watching
from twisted_mesh.monitor.webhook import Webhook, webhook_file, webhook_url
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.state.environment import BadEnvironment, user_state_dir

_log = logger("ct")
#: Connections for those who ask how it stands.
_MOST = 64


def index_path(state_dir: str | None, index: str | None) -> Path:
    """Where the index is: in the state, if that is ours or is to be made, else in the user's own."""
    if index:
        return Path(index)
    state = state_path(state_dir)
    with suppress(OSError, BadEnvironment):
        if state.exists() and state.stat().st_uid != os.geteuid():
            state = user_state_dir()
    return state / "ct-watch" / "index.db"


@frozen
class WatchOptions:
    """The options, understood."""

    index: str | None
    ct_logs_key: str | None
    copy: str | None
    watch: WatchList
    compares: bool
    rules: RecordRules
    interval: float
    patience: Patience
    keep: timedelta
    command: Command | None
    webhooks: Sequence[str]
    webhook_files: Sequence[str]
    status: tuple[str, int] | None
    metrics_file: Path | None
    is_once: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "WatchOptions":
        """Raises :class:`PkiError` for an option that cannot be used."""
        for url in options["webhooks"]:
            webhook_url(url)
        if options["once"] and options["status"]:
            raise Unusable("--status is for a monitor that goes on: with --once say --metrics-file")
        since = options["since"]
        command = options["command_"]
        return cls(
            options["index"],
            options["ct_logs_key"],
            options["copy"],
            WatchList(
                tuple(map(NamePattern.parse, options["names"])),
                tuple(map(NamePattern.parse, options["except_for"])),
                frozenset(
                    bytes.fromhex(issuer_meant(text, "--expect-issuer"))
                    for text in options["issuers"]
                ),
                _expected(options["keys"]),
            ),
            options["compare"],
            RecordRules(
                options["quorum"],
                parse_duration(options["record_keeps"]),
                parse_rfc3339(since) if since else None,
            ),
            ct_sources.seconds(options["interval"], "--interval"),
            Patience(parse_duration(options["away"]), parse_duration(options["stale"])),
            parse_duration(options["keep"]),
            Command.parse(command, option="--command") if command else None,
            options["webhooks"],
            options["webhook_files"],
            _address(options["status"]) if options["status"] else None,
            Path(options["metrics_file"]) if options["metrics_file"] else None,
            options["once"],
        )


def _expected(texts: Sequence[str]) -> Sequence[ExpectedKeys]:
    """``PATTERN=SHA256|FILE``; of one pattern there may be several."""
    found: dict[str, set[bytes]] = {}
    for text in texts:
        pattern, equals, key = text.partition("=")
        if not equals or not key:
            raise Unusable(
                f"--expect-key {discreet(text, 100)!r}: write PATTERN=SHA256 or PATTERN=FILE"
            )
        found.setdefault(pattern, set()).add(bytes.fromhex(key_meant(key)))
    return tuple(
        ExpectedKeys(NamePattern.parse(pattern), frozenset(keys)) for pattern, keys in found.items()
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 65536
    if not _is_loopback(host) or number > 65535:
        raise Malformed(
            f"--status {discreet(text, 80)!r}: write 127.0.0.1:PORT or [::1]:PORT, which only this machine reaches"
        )
    return host, number


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def watch(reach: Reach, list_path: Path, options: WatchOptions, *, as_json: bool) -> int:
    """``ct watch``; its exit status. Raises :class:`PkiError` and :class:`click.Abort`."""
    logs = ct_sources.readable(ct_sources.logs_of(list_path, options.ct_logs_key))
    ct_sources.refuse_many(logs, options.copy)
    timeout = ct_sources.seconds(reach.timeout, "--timeout")
    administration = Administration(client_of(reach)) if options.compares else None
    sources = [ct_sources.source_of(log, options.copy, timeout, reactor) for log in logs]
    sinks = _sinks(options)
    database = Database(index_path(reach.state_dir, options.index))
    database.own()
    observer = (
        observe.JsonObserver(sys.stdout)
        if as_json
        else observe.TextObserver(sys.stdout, timestamps=not options.is_once)
    )

    async def work() -> int:
        rooms = [_Room("index"), _Room("record"), _Room("command")]
        try:
            for room in rooms:
                room.start()
            in_index, in_ca, in_command = [room.call for room in rooms]
            monitor = _Monitor(options, Index(database, options.compares), in_index)
            told = [LogLines(), *sinks]
            if options.command is not None:
                commands = Commands(options.command, in_command)
                _ = reactor.addSystemEventTrigger("before", "shutdown", commands.stop)
                told.append(commands)
            return await monitor.run(sources, told, administration, in_ca)
        finally:
            for room in rooms:
                room.stop()
            database.close()

    return running.run("mesh-ctl", work, [observer])


def _sinks(options: WatchOptions) -> list[Sink]:
    sinks: list[Sink] = [Webhook(reactor, webhook_url(url)) for url in options.webhooks]
    sinks += [Webhook(reactor, *webhook_file(Path(name))) for name in options.webhook_files]
    return sinks


class _Room:
    """A thread of its own for one kind of work, which is done in its order."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPool(0, 1, name)

    def start(self) -> None:
        self._pool.start()
        # However it ends: a thread that is left would keep the process.
        _ = reactor.addSystemEventTrigger("during", "shutdown", self.stop)

    def call(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        return deferToThreadPool(reactor, self._pool, call, *args, **kwargs)

    def stop(self) -> None:
        if not self._pool.joined:
            self._pool.stop()


@frozen
class _Monitor:
    options: WatchOptions
    index: Index
    in_index: Defer

    async def run(
        self,
        sources: Sequence[Source],
        sinks: Sequence[Sink],
        administration: Administration | None,
        in_ca: Defer,
    ) -> int:
        options, index, in_index = self.options, self.index, self.in_index
        followers = [
            Follower(source, index, in_index, options.watch, wall_clock, options.patience)
            for source in sources
        ]
        comparison = None
        if administration is not None:
            comparison = RecordComparison(
                administration, result_of, in_ca, index, in_index, wall_clock, options.rules
            )
        teller = Teller(index, in_index, sinks, reactor.seconds)
        figures = Figures(followers, teller, index, in_index, options.metrics_file)
        watching = Watching(
            followers,
            comparison,
            teller,
            index,
            in_index,
            reactor,
            wall_clock,
            options.interval,
            options.keep,
            figures.refresh,
        )
        if options.is_once:
            return await self._once(watching, figures)
        port = self._listen(figures)
        try:
            await figures.refresh()
            await watching.run()
        finally:
            if port is not None:
                _ = port.stopListening()  # a reactor that stops is not waited for
        return DONE

    async def _once(self, watching: Watching, figures: Figures) -> int:
        is_whole, count = await watching.once()
        await figures.refresh()
        for follower in watching.followers:
            size = follower.place.size if follower.place else 0
            output.say(f"{follower.origin}: {output.counted(size, 'entry', 'entries')} read")
        output.say(output.counted(count, "alert"))
        if count:
            return REFUSED
        return DONE if is_whole else UNREACHABLE

    def _listen(self, figures: Figures) -> IListeningPort | None:
        if self.options.status is None:
            return None
        host, number = self.options.status
        limit = ConnectionLimit(Capacity.of(_MOST), reactor, "the status port", _log)
        site = BoundedSite(StatusSite(figures.questions), reactor, connection_limit=limit)
        try:
            port: IListeningPort = reactor.listenTCP(number, site, interface=host)
        except Exception as error:
            raise PkiError(f"--status {host}:{number} cannot be listened on ({error})") from None
        _log.info(
            "How it stands: http://{host}:{port}/metrics",
            event="ct-status",
            host=host,
            port=port.getHost().port,  # type: ignore[attr-defined]
        )
        return port
