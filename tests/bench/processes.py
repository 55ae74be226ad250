"""Processes under measurement: one core each, their output to a file, as a user would have it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from attrs import define

from tests.running import CHECKOUT, PATIENCE, NeverSaid

_CORES: list[int] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
#: What is measured has one core to itself, all else has another. None where the system cannot pin.
SERVER_CORE: int | None = _CORES[0] if len(_CORES) > 1 else None
LOAD_CORE: int | None = _CORES[-1] if len(_CORES) > 1 else None


def cpu_seconds(pid: int) -> float:
    """A process's processor time so far, user and system. Raises :class:`OSError` where there is no /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started in here runs on ``core``, every thread of it."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@define(eq=False)
class Service:
    """A process that goes on until it is stopped."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(
        cls,
        command: list[Any],
        log: Path,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        core: int | None = SERVER_CORE,
    ) -> Self:
        with log.open("wb") as out, pinned(core):
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(env or {})},
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Raises :class:`NeverSaid`."""
        deadline = time.monotonic() + patience
        while True:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.text, re.MULTILINE)
            if found:
                return found
            if ended or time.monotonic() > deadline:
                raise NeverSaid(f"{pattern!r} is not in:\n{self.text[-2000:]}")
            time.sleep(0.02)

    def count(self, text: str) -> int:
        """How often its log says so."""
        return self.log.read_bytes().count(text.encode())

    def cpu_seconds(self) -> float | None:
        """Its processor time so far, user and system; None where there is no /proc."""
        try:
            return cpu_seconds(self.pid)
        except OSError:
            return None

    def descriptors(self) -> int | None:
        """How many files and sockets it has open; None where there is no /proc."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return None

    def resident_kib(self) -> int | None:
        done = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.pid)], capture_output=True, text=True
        )
        return int(done.stdout) if done.stdout.strip().isdigit() else None

    def most_resident_kib(self) -> int | None:
        """The most that it has had so far; None where there is no /proc."""
        try:
            told = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB$", told, re.MULTILINE)
        return int(found[1]) if found else None

    def kill(self) -> None:
        """As a machine that loses its power does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As a user stops it; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@define(eq=False)
class Stage:
    """A directory, and the services that run in it; all of them end with it."""

    home: Path
    services: list[Service]

    def start(
        self,
        name: str,
        *command: object,
        env: Mapping[str, str] | None = None,
        core: int | None = SERVER_CORE,
    ) -> Service:
        service = Service.start(
            list(command), self.home / f"{name}.log", cwd=self.home, env=env, core=core
        )
        self.services.append(service)
        return service

    def module(
        self, name: str, module: str, *arguments: object, core: int | None = SERVER_CORE
    ) -> Service:
        """A server of this directory's, under the interpreter of the measured ones."""
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(CHECKOUT))))
        command = (sys.executable, "-m", module, *arguments)
        return self.start(name, *command, env={"PYTHONPATH": path}, core=core)


@contextmanager
def stage(home: Path) -> Iterator[Stage]:
    home.mkdir(parents=True, exist_ok=True)
    running = Stage(home, [])
    try:
        yield running
    finally:
        for service in reversed(running.services):
            with suppress(ProcessLookupError):
                service.stop()


@contextmanager
def script(
    module: str, core: int | None = LOAD_CORE, *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A module of ours that takes a job on its standard input and answers on its output."""
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            _close(stream)


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with suppress(OSError):
            stream.close()
