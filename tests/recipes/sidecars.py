"""The pages docs/recipes/sidecar-*.md, typed from top to bottom: each block is run, each answer is looked for."""

import os
import re
import shlex
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from attrs import define, field

from tests.recipes.estate import Estate
from tests.running import BIN, PATIENCE, Running, free_port, until

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"(?<!\d)\d{4}(?!\d)")
#: Seconds within which what rests on a right ends with it, on a loaded machine.
CUT_OFF = 10.0
_MACHINE = re.compile(r"\b\w+\.example\b")

Program = Callable[["Reader", str], object]
"""Starts what a block of some language is the configuration or the text of, or keeps it for a later one."""
Open = Callable[["Reader"], AbstractContextManager[object]]
"""Something that goes on through the first door, and must be cut off by what is done meanwhile."""


@define(eq=False)
class Reader:
    """Somebody who does what a page says, on one machine, with ports and places of its own."""

    estate: Estate
    page: Path
    programs: Mapping[str, Program]
    """By the language of their block."""
    open: Open
    """While somebody's right is ended."""
    places: Mapping[str, str | Path] = field(factory=dict)
    sidecars: list[Running] = field(factory=list, init=False)
    doors: list[int] = field(factory=list, init=False)
    """The ports of sidecars that take plain callers, in order."""
    _ports: dict[str, int] = field(factory=dict, init=False)
    _looked_for: Counter[str] = field(factory=Counter, init=False)

    @property
    def home(self) -> Path:
        """Where the test may write."""
        return self.estate.home

    def here(self, text: str) -> str:
        """What the page says, for this machine."""
        text = _MACHINE.sub("localhost", text)
        text = _PORT.sub(lambda found: str(self.port(found[0])), text)
        for theirs, ours in self.places.items():
            text = text.replace(theirs, str(ours))
        return text

    def port(self, theirs: str) -> int:
        """The one that stands for a port of the page."""
        return self._ports.setdefault(theirs, free_port())

    def read(self) -> None:
        """Do all of it, and stop what was started."""
        for indent, language, block in _FENCE.findall(self.page.read_text(encoding="utf-8")):
            text = self.here(re.sub(rf"^{indent}", "", block, flags=re.MULTILINE))
            if text.startswith(("mesh-proxy ", "mesh-agent ")):
                self._start(shlex.split(text.replace("\\\n", " ")))
            elif language == "console":
                for command, told in _typed(text):
                    self._type(command, told)
            elif language == "text":
                for line in text.splitlines():
                    self._look_for(line)
            else:
                self.programs[language](self, text)
        for sidecar in reversed(self.sidecars):
            assert sidecar.stop() == 0

    def _start(self, words: list[str]) -> None:
        mesh = self.estate.mesh
        sidecar = Running.start(BIN / words[0], *words[1:], cwd=self.home, env=mesh.env)
        mesh.processes.append(sidecar)
        self.sidecars.append(sidecar)
        sidecar.wait_for(r"Ready to carry connections\.|Files in \S+ are new")
        if "client" in words:
            listen = words[words.index("--listen") + 1]
            if listen.isdigit():
                self.doors.append(int(listen))

    def _type(self, command: str, told: str) -> None:
        ends_a_right = command.startswith("mesh-ctl cert revoke")
        with self.open(self) if ends_a_right else nullcontext():
            done = self._shell(command)
        # Whether the last line is ended, as of an answer's body, no page shows.
        pattern = re.escape(told.rstrip("\n")).replace("…", ".*") + "\n?"
        assert re.fullmatch(pattern, done, re.DOTALL), f"{command}\n{done}\nin place of\n{told}"

    def _shell(self, command: str) -> str:
        (self.home / ".curlrc").write_text("silent\nshow-error\n")
        path = f"{BIN}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self.estate.mesh.env, "PATH": path, "CURL_HOME": str(self.home)},
            cwd=self.home,
            timeout=PATIENCE,
        )
        return done.stdout

    def _look_for(self, line: str) -> None:
        """In the log of any sidecar, and there anew where the page has shown it before."""
        pattern = re.escape(line).replace("…", ".*")
        self._looked_for[line] += 1

        def logs() -> str:
            return "\n".join(sidecar.text for sidecar in self.sidecars)

        until(
            lambda: len(re.findall(pattern, logs())) >= self._looked_for[line],
            lambda: f"{line} is not in {logs()}",
        )


def _typed(block: str) -> list[tuple[str, str]]:
    """Commands and what they print."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert not parts[0]
    return list(zip(parts[1::2], parts[2::2], strict=True))


def connection(said: bytes, enough: bytes) -> Open:
    """One that is idle, once ``said`` was answered by ``enough``."""

    @contextmanager
    def opened(reader: Reader) -> Iterator[None]:
        with socket.create_connection(("127.0.0.1", reader.doors[0]), PATIENCE) as caller:
            caller.sendall(said)
            heard = b""
            while enough not in heard:
                more = caller.recv(65536)
                assert more, f"it hung up after {heard!r}"
                heard += more
            yield
            caller.settimeout(CUT_OFF)
            with suppress(ConnectionResetError):
                while caller.recv(65536):
                    pass

    return opened
