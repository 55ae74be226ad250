"""Who is told that files are new: a command, a process, and how often that has to be tried."""

import random
from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import define, field, frozen
from prometheus_client import Counter
from twisted.logger import Logger

from pki import renewal
from pki.codes import Code
from pki.errors import PkiError, Problem
from twisted_mesh.files.command import Command, Stop
from twisted_mesh.files.pid_signal import PidFileSignal
from twisted_mesh.runtime.log import reasons

#: After so many failures in a row what fails is told of in /readyz.
KEEPS_FAILING = 3

FAILURES = Counter(
    "mesh_files_failures",
    "Attempts that have failed to fetch CRLs, to write the files, or to tell who uses them.",
    ["part"],
    registry=None,  # of the agent alone
)


@define(eq=False)
class Part:
    """One thing that may fail, and is tried again after a pause that is longer each time."""

    name: str
    """In metrics and in /readyz: ``crls``, ``files``, ``command``, ``signal``."""
    loss: str
    """A sentence for the log: what it means that it fails."""
    log: Logger
    draw: random.Random = field(factory=random.SystemRandom, repr=False)
    problem: Problem | None = field(default=None, init=False)
    """Why it failed the last time; None where it did not."""
    failures: int = field(default=0, init=False)
    """In a row."""
    again_at: float = field(default=0.0, init=False)
    """On a clock that does not jump."""

    def __attrs_post_init__(self) -> None:
        FAILURES.labels(self.name)

    @property
    def keeps_failing(self) -> bool:
        """Whether it is more than a hiccup."""
        return self.failures >= KEEPS_FAILING

    def failed(self, error: PkiError, seconds: float) -> None:
        """It failed at that moment. The same trouble is told of once, and again when it is known to last."""
        FAILURES.labels(self.name).inc()
        found = error.problems[0]
        is_other = self.problem is None or self.problem.detail != found.detail
        pause = renewal.backoff(self.failures, self.draw).total_seconds()
        self.failures += 1
        self.again_at = seconds + pause
        self.problem = Problem(Code.FILES_BEHIND, found.detail, found.remedy)
        is_loud = is_other or self.failures == KEEPS_FAILING
        (self.log.warn if is_loud else self.log.debug)(
            "{loss}: {reasons}; trying again in {pause:.1f} s",
            event="files-behind",
            loss=self.loss,
            part=self.name,
            reasons=reasons(error.problems),
            pause=pause,
        )

    def done(self) -> None:
        """It succeeded."""
        if self.problem is not None:
            self.log.info(
                "That is over: {part} is up to date", event="files-up-to-date", part=self.name
            )
        self.problem, self.failures, self.again_at = None, 0, 0.0


class Way(Protocol):
    """How somebody is told. It blocks, and is called on a thread."""

    def __call__(self, facts: Mapping[str, str], stop: Stop) -> str:
        """Tell it, and say what was done, for the log. Raises :class:`PkiError`."""


@frozen
class ByCommand:
    """Runs a command."""

    command: Command

    def __call__(self, facts: Mapping[str, str], stop: Stop) -> str:
        """Run it to its end."""
        self.command.run(facts, stop)
        return f"{self.command.name} was run"


@frozen
class BySignal:
    """Signals a process."""

    signal: PidFileSignal

    def __call__(self, facts: Mapping[str, str], stop: Stop) -> str:
        """Send it."""
        return f"{self.signal.number.name} was sent to {self.signal.send()}"


@define(eq=False)
class Teller:
    """Tells one of them, until it has succeeded, of all that has changed since it was told the last time."""

    way: Callable[[Mapping[str, str], Stop], str]
    part: Part
    untold: set[str] = field(factory=set, init=False)

    def is_due(self, seconds: float) -> bool:
        """Whether it is time to tell it."""
        return bool(self.untold) and seconds >= self.part.again_at


def by_command(command: Command, log: Logger) -> Teller:
    """``--on-update``."""
    return Teller(ByCommand(command), Part("command", "The command was not done", log))


def by_signal(signal: PidFileSignal, log: Logger) -> Teller:
    """``--on-update-signal``."""
    return Teller(BySignal(signal), Part("signal", "The process was not signalled", log))
