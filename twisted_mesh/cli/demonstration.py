"""What the demonstrations have in common: a directory, real processes in it, and lines that tell what happens."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from attrs import define, field

_BIN = Path(sys.executable).parent
_PATIENCE = 60.0
_TOKEN = re.compile(r"(mj1_\w{4})\w+")
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:]+Z ")


class DemoFailed(Exception):
    """A step did not come out as it must."""


@define(eq=False)
class Demo:
    """A temporary directory with one state directory or several, and the processes that run on them."""

    home: Path
    color: bool
    state: str = "state"
    """The name of the state directory that processes are started with."""
    shown: re.Pattern[str] = field(factory=lambda: re.compile(""), init=False)
    """Which of the services' lines are shown."""
    _processes: list[subprocess.Popen[str]] = field(factory=list, init=False)
    _step: int = field(default=0, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _seen: dict[int, list[str]] = field(factory=dict, init=False)

    def step(self, title: str) -> None:
        """Begin the next step, under its number."""
        self._step += 1
        line = f"{self._step}. {title}"
        self.say(f"\n\033[1m{line}\033[0m" if self.color else f"\n{line}")

    def say(self, text: str) -> None:
        """Print a line, whole also while services print theirs."""
        with self._lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    @property
    def environment(self) -> dict[str, str]:
        """That of every process: the state directory is the demo's own."""
        return {
            **os.environ,
            "MESH_STATE_DIR": str(self.home / self.state),
            "PYTHONUNBUFFERED": "1",
        }

    def command(self, program: str, *arguments: str) -> list[str]:
        """The words that run one of our programs with this Python."""
        return [sys.executable, str(_BIN / program), *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A service under twistd, its log shown as it comes."""
        self.say("$ twistd -n " + " ".join(arguments))
        return self._start(self.command("twistd", "-n", *arguments))

    def start_module(self, *arguments: str) -> subprocess.Popen[str]:
        """A program of Python's own, which knows nothing of the mesh."""
        self.say("$ python -m " + " ".join(arguments))
        return self._start([sys.executable, "-m", *arguments])

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.home,
            env=self.environment,
        )
        self._processes.append(process)
        self._seen[process.pid] = []
        threading.Thread(target=self._show, args=(process,), daemon=True).start()
        return process

    def _show(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            text = _STAMP.sub("", line.rstrip("\n"))
            self._seen[process.pid].append(text)
            if self.shown.search(text):
                self.say("  " + text)

    def wait_for(
        self, process: subprocess.Popen[str], pattern: str, count: int = 1
    ) -> re.Match[str]:
        """The ``count``-th line of a service that matches. Raises :class:`DemoFailed`."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            found = [
                m for m in (re.search(pattern, line) for line in list(self._seen[process.pid])) if m
            ]
            if len(found) >= count:
                return found[count - 1]
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise DemoFailed(f"the service never said {pattern!r}")

    def run(self, program: str, *arguments: str, expect: int = 0, last: int | None = None) -> str:
        """A command, its output shown (or its last lines), its exit status checked."""
        self.say(f"$ {program} " + _TOKEN.sub(r"\1…", " ".join(arguments)))
        done = subprocess.run(
            self.command(program, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.home,
            env=self.environment,
            timeout=_PATIENCE,
        )
        lines = done.stdout.splitlines()
        for line in lines[0 if last is None else len(lines) - last :]:
            self.say("  " + line)
        if done.returncode != expect:
            told = lines[-1] if lines else "it says nothing"
            raise DemoFailed(f"{program} ended with {done.returncode}, not {expect}: {told}")
        return done.stdout

    def stop(self) -> None:
        """End all that was started, the youngest first."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run(show: Callable[[Demo], None], by_hand: str) -> int:
    """Have a demonstration shown, which ends with what can be done by hand; the exit status."""
    home = Path(tempfile.mkdtemp(prefix="mesh-"))
    began = time.monotonic()
    demo = Demo(home, color=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    try:
        show(demo)
        demo.say(f"\nAll of it worked, in {time.monotonic() - began:.0f} s.\n{by_hand}")
        return 0
    except (DemoFailed, OSError, subprocess.TimeoutExpired, HTTPException) as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        demo.stop()
        shutil.rmtree(home, ignore_errors=True)
