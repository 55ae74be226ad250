"""Services start or say in one sentence why not, and stop when what is under way is done."""

import errno
import gc
import io
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from pki.errors import Malformed, PkiError
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh import observe
from twisted_mesh.taps import lifecycle, signals
from twisted_mesh.taps.ca import CaService
from twisted_mesh.taps.ca_options import Options as CaOptions
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import listening_endpoint, result_of
from twisted_mesh.taps.pid_file import PidFile
from twisted_mesh.taps.reread import Reread
from twisted_mesh.taps.service_options import ServiceOptions, StartError
from twisted_mesh.taps.signals import STOPPING, before_the_start

HEEDED = (*STOPPING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# Where to listen.


def listens(text: str, default_interface: str = "") -> tuple[str, int]:
    """The interface and the port that come of it."""
    reactor = MemoryReactorClock()
    listening_endpoint(reactor, text, default_interface).listen(Factory())
    ((port, _, backlog, interface),) = reactor.tcpServers
    assert backlog == (50 if text.startswith("tcp") else 1024)
    return interface, port


@pytest.mark.parametrize(
    ("text", "interface", "port"),
    [
        ("9443", "", 9443),
        (":9443", "", 9443),
        ("0", "", 0),
        ("65535", "", 65535),
        ("127.0.0.1:9443", "127.0.0.1", 9443),
        ("localhost:9443", "localhost", 9443),
        ("[::1]:9443", "::1", 9443),
        ("[::]:9443", "::", 9443),
        ("[127.0.0.1]:9443", "127.0.0.1", 9443),
        ("tcp:9443", "", 9443),
        ("tcp:9443:interface=127.0.0.1", "127.0.0.1", 9443),
        ("tcp:port=9443:interface=127.0.0.1", "127.0.0.1", 9443),
        ("tcp6:9443:interface=\\:\\:1", "::1", 9443),
    ],
)
def test_an_address_is_listened_on(text: str, interface: str, port: int) -> None:
    assert listens(text) == (interface, port)


@pytest.mark.parametrize(
    ("text", "interface"),
    [("8443", "127.0.0.1"), (":8443", ""), ("10.0.0.1:8443", "10.0.0.1"), ("tcp:8443", "")],
)
def test_the_default_interface_is_for_a_port_alone(text: str, interface: str) -> None:
    assert listens(text, "127.0.0.1") == (interface, 8443)


def test_a_unix_socket_is_a_twisted_endpoint_string() -> None:
    reactor = MemoryReactorClock()
    listening_endpoint(reactor, "unix:/run/x.sock:mode=600").listen(Factory())
    ((path, *_),) = reactor.unixServers
    assert path == "/run/x.sock"


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "host", "host:", "host:port", "tcp", "tcp:", "tcp:x", "nonsense:x=y"),
        *("65536", "host:99999", "9" * 5000, "-1", "+1", "1_0", "0x50", "\u0661\u0662", "9443 "),
        *("::1:9443", "::9443", ":::9443", ":host:9443", "fe80::1:9443", "a:b:9443"),
        *("http://host:9443", "9443\n", "host:9443:interface=x"),
    ],
)
def test_what_is_no_address_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(StartError) as refused:
        listening_endpoint(MemoryReactorClock(), text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


@given(
    st.text()
    | st.from_regex(r"[a-z0-9.\[\]:\\=]{0,12}:[0-9]{1,6}", fullmatch=True)
    | st.from_regex(r"(tcp|tcp6|unix|ssl|haproxy|systemd):[a-z0-9:=.]{0,12}", fullmatch=True)
)
@example("\ud800")
@example("[:9443")
@example("[a\\]:1")
def test_an_address_gives_an_endpoint_or_a_start_error(text: str) -> None:
    try:
        endpoint = listening_endpoint(MemoryReactorClock(), text)
    except StartError as refused:
        assert str(refused).isprintable()
    else:
        assert IStreamServerEndpoint.providedBy(endpoint)


@given(st.from_regex(r"[a-z0-9.:\[\]]{1,12}:[0-9]{1,5}", fullmatch=True))
@example("::1:9443")
def test_whoever_names_a_host_is_never_served_to_all(text: str) -> None:
    reactor = MemoryReactorClock()
    try:
        listening_endpoint(reactor, text).listen(Factory())
    except StartError:
        return
    host = text.rpartition(":")[0].strip("[]")
    if not text.startswith(("tcp:", "tcp6:")) and host and reactor.tcpServers:
        ((_, _, _, interface),) = reactor.tcpServers
        assert interface == host


# What came of it.


def test_the_port_of_a_listen_that_has_fired_is_handed_on() -> None:
    assert result_of(succeed("port"), "the address") == "port"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            CannotListenError("", 9443, OSError(errno.EADDRINUSE, "Address already in use")),
            "the address 9443 cannot be listened on (Address already in use): stop what uses it, "
            "or choose another address",
        ),
        (
            CannotListenError("", 80, OSError(errno.EACCES, "Permission denied")),
            "(Permission denied): ports below",
        ),
        (CannotListenError("x", 80, socket.gaierror(-2, "Name or service not known")), "not known"),
        (CannotListenError(None, "/x", "Cannot acquire lock"), "(Cannot acquire lock)"),
        (ValueError("a\nb"), "(a\\nb)"),
    ],
)
def test_a_listen_that_failed_is_told_in_one_sentence(error: Exception, words: str) -> None:
    with pytest.raises(StartError) as refused:
        result_of(fail(error), "the address 9443")
    assert words in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_real_port_in_use_is_told_in_one_sentence() -> None:
    from twisted.internet import reactor

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            StartError, match=r"in use\): (PID \d+ .* listens there: stop that|stop what uses it)"
        ):
            result_of(listening_endpoint(reactor, text).listen(Factory()), f"the address {text}")


def test_a_listen_that_takes_its_time_is_not_waited_for() -> None:
    with pytest.raises(StartError, match="takes its time"):
        result_of(Deferred(), "the address")


# Starting and stopping.


class Reactor(Clock):
    """What a service asks of a reactor, before and after it runs."""

    running = False
    stopped = 0

    def __init__(self) -> None:
        super().__init__()
        self._when_running: list[Callable[[], Any]] = []

    def callWhenRunning(self, call: Callable[..., Any], *arguments: Any) -> None:
        if self.running:
            call(*arguments)
        else:
            self._when_running.append(lambda: call(*arguments))

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.callLater(0, call, *arguments)

    def run(self) -> None:
        self.running = True
        for call in self._when_running:
            call()

    def stop(self) -> None:
        if not self.running:
            raise ReactorNotRunning
        self.stopped += 1


class Port:
    def __init__(self) -> None:
        self.stopped: Deferred[None] = Deferred()

    def stopListening(self) -> "Deferred[None]":
        return self.stopped


class Options(ServiceOptions):
    program = "mesh-test"


class Service(MeshService):
    """A service that starts, runs and drains as the test says."""

    starting: Exception | None = None
    waits_for: "Deferred[None] | None" = None
    runs: Any = None

    def understand(self) -> None:
        self.log = RecordingLog()
        self.steps: list[str] = []

    async def start(self) -> None:
        self.steps.append("start")
        if self.waits_for is not None:
            await self.waits_for
            self.steps.append("start to its end")
        if self.starting:
            raise self.starting

    async def run(self) -> None:
        self.steps.append("run")
        if isinstance(self.runs, Exception):
            raise self.runs
        if self.runs is not None:
            await self.runs
            self.steps.append("run to its end")

    async def drain(self, seconds: float) -> None:
        self.steps.append(f"drain {seconds}")

    async def close(self) -> None:
        self.steps.append("close")


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was left to do at the end of the process."""
    left: list[Any] = []
    monkeypatch.setattr(lifecycle.atexit, "register", left.append)
    handlers = {number: signal.getsignal(number) for number in HEEDED}
    yield left
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.unfreeze()


@pytest.fixture
def service(exits: list[Any]) -> Service:
    options = Options()
    options.parseOptions(["--drain", "5s"])
    return Service(options, Reactor())


def test_a_service_starts_and_then_runs(service: Service) -> None:
    service.startService()
    assert service.steps == ["start", "run"]
    assert service.running
    assert service.log.events == []


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    out = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", out)
    return out.getvalue


def test_a_service_that_cannot_start_says_why_and_ends(
    service: Service, stderr: Callable[[], str]
) -> None:
    service.starting = StartError("the port is taken")
    with pytest.raises(SystemExit) as ended:
        service.startService()
    assert ended.value.code == 1
    assert stderr() == "mesh-test: the port is taken\n"
    assert service.log.count("failed") == 1
    assert not service.running


def test_a_daemon_that_cannot_start_tells_twistd_and_leaves_no_pidfile(
    service: Service, stderr: Callable[[], str], tmp_path: Path
) -> None:
    pidfile = tmp_path / "mesh.pid"
    reads, writes = os.pipe()
    service.options.parent = {"statusPipe": writes}
    service.pid_file = PidFile(str(pidfile))
    service.privilegedStartService()
    assert pidfile.exists()
    service.starting = StartError("the port is taken, " + "é" * 200)
    with pytest.raises(SystemExit):
        service.startService()
    assert not pidfile.exists()
    assert os.read(reads, 1000).startswith(b"1 the port is taken")
    os.close(reads)
    os.close(writes)


def test_a_bug_in_starting_is_no_sentence(service: Service) -> None:
    service.starting = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        service.startService()


def test_a_start_that_has_to_wait_is_waited_for_and_then_the_service_runs(service: Service) -> None:
    service.waits_for = Deferred()
    service.startService()
    service.reactor.run()
    assert service.steps == ["start"]
    service.waits_for.callback(None)
    assert service.steps == ["start", "start to its end", "run"]
    assert service.log.events == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StartError("the port is taken"), "the port is taken"),
        (RuntimeError("x"), "a bug of its own"),
    ],
    ids=["refused", "a bug"],
)
def test_a_start_that_fails_once_it_has_waited_ends_the_reactor_with_a_status_that_is_not_0(
    service: Service,
    stderr: Callable[[], str],
    exits: list[Any],
    error: Exception,
    words: str,
) -> None:
    service.starting, service.waits_for = error, Deferred()
    service.startService()
    service.reactor.run()
    assert (service.reactor.stopped, exits, stderr()) == (0, [], "")
    service.waits_for.callback(None)
    assert service.reactor.stopped == 1
    assert exits == [lifecycle._exit_with_failure]
    (sentence,) = stderr().splitlines()
    assert sentence.startswith("mesh-test: ")
    assert words in sentence
    assert "run" not in service.steps


@pytest.mark.parametrize("is_late", [True, False])
def test_a_service_that_is_stopped_while_its_start_waits_starts_no_further(
    service: Service, exits: list[Any], is_late: bool
) -> None:
    service.waits_for = waiting = Deferred()
    service.startService()
    service.reactor.run()
    service.stopService()
    assert service.steps == ["start", "drain 5.0", "close"]
    if is_late:
        waiting.callback(None)
    assert "run" not in service.steps
    assert exits == [], "and its status is 0"


@pytest.mark.parametrize("early", [True, False])
def test_a_service_that_cannot_run_ends_with_a_status_that_is_not_0(
    service: Service, stderr: Callable[[], str], exits: list[Any], early: bool
) -> None:
    waiting: Deferred[None] = Deferred()
    service.runs = StartError("the CA is gone") if early else waiting
    service.startService()
    service.reactor.run()
    if not early:
        waiting.errback(StartError("the CA is gone"))
    assert service.reactor.stopped == 1
    assert exits == [lifecycle._exit_with_failure]
    assert stderr() == "mesh-test: the CA is gone\n"
    assert "broke" not in service.log.all_text()


def test_a_bug_in_running_ends_the_service_with_its_details_in_the_log(
    service: Service, stderr: Callable[[], str], exits: list[Any]
) -> None:
    service.runs = RuntimeError("a bug")
    service.startService()
    service.reactor.run()
    assert service.reactor.stopped == 1
    assert exits == [lifecycle._exit_with_failure]
    assert "a bug of its own" in stderr()
    assert "starting broke" in service.log.all_text()


def test_stopping_closes_the_ports_then_drains_then_releases(service: Service) -> None:
    service.startService()
    service.steps.clear()
    ports: Any = [Port(), Port()]
    service.ports += ports
    done: list[Any] = []
    service.stopService().addCallback(done.append)
    assert service.steps == done == []
    for port in ports:
        port.stopped.callback(None)
    assert service.steps == ["drain 5.0", "close"]
    assert done == [None]
    assert [e["event"] for e in service.log.events] == ["stopping", "stopped"]


@pytest.mark.parametrize("is_late", [True, False])
def test_a_service_that_is_stopped_while_it_starts_starts_no_further(
    service: Service, exits: list[Any], is_late: bool
) -> None:
    service.runs = waiting = Deferred()
    service.startService()
    service.stopService()
    assert service.steps == ["start", "run", "drain 5.0", "close"]
    if is_late:
        waiting.callback(None)
    assert "run to its end" not in service.steps
    assert [e["event"] for e in service.log.events] == ["stopping", "stopped"]
    assert exits == [], "and its status is 0"


def test_what_fails_once_it_is_stopping_does_not_stop_it_again(
    service: Service, stderr: Callable[[], str]
) -> None:
    service.startService()
    service.reactor.run()
    service.stopService()
    service.fail("the CA is gone")
    assert service.reactor.stopped == 0
    assert stderr() == "mesh-test: the CA is gone\n"


def test_one_signal_stops_gracefully_and_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    service.startService()
    service.reactor.run()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        service.reactor.advance(0)
    assert service.reactor.stopped == 1
    assert ends == []
    assert "SIGTERM: it is stopping already" in service.log.text("signal")
    os.kill(os.getpid(), signal.SIGINT)
    assert ends == [130]


def test_a_stop_before_the_reactor_runs_waits_for_it(service: Service) -> None:
    service.startService()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    assert service.reactor.stopped == 0
    service.reactor.run()
    service.reactor.advance(0)
    assert service.reactor.stopped == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_no_other_signal_ends_it_early_or_late(
    service: Service, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopened: list[int] = []
    monkeypatch.setattr(signals.observe, "reopen", lambda: reopened.append(number))
    before_the_start()
    os.kill(os.getpid(), number)
    service.startService()
    service.reactor.run()
    service.reactor.advance(0)
    os.kill(os.getpid(), number)
    service.reactor.advance(0)
    assert reopened == ([] if number == signal.SIGUSR2 else [number] * 2), (
        "one that came early counts"
    )
    assert service.reactor.stopped == 0
    if number == signal.SIGHUP:
        assert service.log.count("reread-done") == 2
        assert "SIGHUP: no option" in service.log.text("reread-done")


def test_whoever_has_a_handler_of_their_own_keeps_it(service: Service) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    before_the_start()
    service.startService()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert heard == [signal.SIGUSR2]


def test_before_anything_is_taken_a_stop_is_the_end(
    exits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    before_the_start()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGQUIT)
    assert ends == [0, 0]


def test_what_is_broken_keeps_what_there_was_and_the_others_are_read(service: Service) -> None:
    async def refused() -> str:
        raise Malformed("line 3 is no pattern")

    async def broken() -> str:
        raise ZeroDivisionError

    async def new() -> str:
        return "new: spiffe://a/b"

    async def old() -> str:
        return ""

    things = [
        Reread(name, again)
        for name, again in (("--a", refused), ("--b", broken), ("--c", new), ("--d", old))
    ]
    service.rereads = lambda: things
    service.startService()
    service.reactor.run()
    os.kill(os.getpid(), signal.SIGHUP)
    service.reactor.advance(0)
    log = service.log
    assert log.text("reread-failed") == (
        "SIGHUP: --a is not taken up, and what was read before stays in force: line 3 is no pattern"
    )
    assert log.count("reread-broke") == 1
    assert log.count("reread") == 2
    assert log.text("reread-done") == "SIGHUP: 1 of 4 things that are read again have changed"


def test_a_level_is_read_again_from_its_file(tmp_path: Path, exits: list[Any]) -> None:
    file = tmp_path / "level"
    file.write_text("warn\nremarks\n")
    options = Options()
    options.parseOptions(["--log-level", f"@{file}"])
    service = Service(options, Reactor())
    service.startService()
    service.reactor.run()
    try:
        for word in ("debug", "debug", "loud"):
            file.write_text(word)
            os.kill(os.getpid(), signal.SIGHUP)
            service.reactor.advance(0)
    finally:
        observe.set_level("info")
    events = [event for event in service.log.events if event["event"].startswith("reread")]
    assert [event.get("change") for event in events] == [
        "debug, and it was warn",
        None,
        "nothing has changed",
        None,
        None,
        None,
    ]
    assert "says 'loud': write debug, info, warn, error" in service.log.text("reread-failed")
    with pytest.raises(SystemExit, match="loud"):
        Options().parseOptions(["--log-level", f"@{file}"])
    with pytest.raises(SystemExit, match="No such file"):
        Options().parseOptions(["--log-level", f"@{tmp_path / 'missing'}"])


def test_ports_that_listen_are_remembered(service: Service) -> None:
    port: Any = Port()
    assert service.listening(succeed(port), "the address") is port
    assert service.ports == [port]
    with pytest.raises(StartError):
        service.listening(Deferred(), "the address")


def test_what_was_cut_off_is_told(service: Service) -> None:
    service.cut_off(3, 5.0)
    assert service.log.text("cut-off") == "3 requests were cut off after 5.0 s"


@pytest.mark.usefixtures("exits")
def test_options_that_mean_nothing_end_it_before_anything_is_touched() -> None:
    class Picky(Service):
        def understand(self) -> None:
            raise Malformed("--listen is no address")

    with pytest.raises(SystemExit) as ended:
        service_of(Picky, Options())
    assert ended.value.code == "mesh-test: --listen is no address"


def test_the_cas_doors_drain_side_by_side(exits: list[Any]) -> None:
    class Site:
        def __init__(self) -> None:
            self.asked: list[float] = []
            self.late: Deferred[int] = Deferred()

        async def drain(self, seconds: float) -> int:
            self.asked.append(seconds)
            return await self.late

    options = CaOptions()
    options.parseOptions(["--insecure-http", "0"])
    service = CaService(options, MemoryReactorClock())
    service.log = RecordingLog()
    sites = [Site() for _ in range(3)]
    service.listeners.sites[:] = sites  # type: ignore[assignment]
    done: list[Any] = []
    Deferred.fromCoroutine(service.drain(10)).addBoth(done.append)
    assert [site.asked for site in sites] == [[10], [10], [10]]
    for site, late in zip(sites, (0, 2, 1), strict=True):
        site.late.callback(late)
    assert done == [None]
    assert service.log.text("cut-off") == "3 requests were cut off after 10 s"


def test_every_start_error_is_an_error_of_ours() -> None:
    assert issubclass(StartError, PkiError)
    assert StartError.code == "start"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_the_log_is_reopened_also_where_a_stop_comes_right_behind(
    service: Service, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopened: list[int] = []
    monkeypatch.setattr(signals.observe, "reopen", lambda: reopened.append(number))
    service.startService()
    service.reactor.run()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGTERM)
    service.reactor.advance(0)
    assert service.reactor.stopped == 1
    assert reopened == [number]
    assert f"{number.name}: it is stopping already" in service.log.text("signal")
    assert service.log.count("reread-done") == 0
