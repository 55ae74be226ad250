"""A CA that kills itself: ``python -m tests.faults.dying STEP N -- <twistd's arguments>``.

It is the CA as it is, with a few of its functions wrapped from outside: at the N-th pass of STEP the
process ends as by ``kill -9``, with nothing flushed, told or tidied up.
"""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

ISSUANCE = (
    "csr-parsed",
    "draft-made",
    "unsigned",
    "signed",
    "issue-uncommitted",
    "issue-committed",
    "answer-half-written",
    "answer-written",
)
#: Where the key is elsewhere, and has seen what it signs: the CA is made to take its own for such a one.
ELSEWHERE = (
    "intent-uncommitted",
    "intent-committed",
    "elsewhere-unsigned",
    "elsewhere-signed",
    "certificate-uncommitted",
    "certificate-committed",
)
#: Where logs are shown a precertificate before: two signatures for each certificate.
LOGGED = (
    "logged-intent-uncommitted",
    "logged-intent-committed",
    "unsigned",
    "signed",
    "log-unasked",
    "log-answered",
    "logged-certificate-uncommitted",
    "logged-certificate-committed",
)
REVOCATION = (
    "revocation-uncommitted",
    "revocation-committed",
    "revocation-unanswered",
    "revocation-answered",
)
PUBLISHING = (
    "number-uncommitted",
    "number-committed",
    "crl-unsigned",
    "crl-signed",
)
LOG = (
    "tiles-uncommitted",
    "tiles-committed",
    "checkpoint-unsigned",
    "checkpoint-uncommitted",
    "checkpoint-committed",
)
START = (
    "authorities-loaded",
    "store-opened",
    "start-uncommitted",
    "start-committed",
)
#: Reached where an earlier life left signatures under way.
WRITE_OFF = ("write-off-uncommitted", "write-off-committed")
STOP = (
    "stop-begun",
    "stop-uncommitted",
    "stop-committed",
    "store-closing",
    "store-closed",
)
#: What every CA comes to.
USUAL = (*ISSUANCE, *ELSEWHERE, *REVOCATION, *PUBLISHING, *LOG, *START, *WRITE_OFF, *STOP)
STEPS = (*USUAL, *(step for step in LOGGED if step not in USUAL))
#: What it says as it dies.
LAST_WORDS = "dies at {step}, pass {number}"

_SIGN, _REVOKE = b"/api/v1/sign", b"/api/v1/revoke"


class Fate:
    """Counts the passes of each step, and dies at the one that it is told."""

    def __init__(self, step: str, number: int) -> None:
        self._step, self._number = step, number
        self._passes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def meets(self, step: str) -> bool:
        """Whether this pass of ``step`` is the last thing to happen."""
        with self._lock:
            self._passes[step] += 1
            return step == self._step and self._passes[step] == self._number

    def passes(self, step: str) -> None:
        if self.meets(step):
            self.die()

    def die(self) -> None:
        words = LAST_WORDS.format(step=self._step, number=self._number)
        os.write(2, f"{words}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, fate: Fate, before: str = "", after: str = "") -> None:
    """Make ``owner.name`` pass one step before, and one after it has done its work."""
    original = getattr(owner, name)

    def passing(step: str) -> None:
        if step:
            fate.passes(step)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        passing(before)
        result = original(*args, **kwargs)
        passing(after)
        return result

    @wraps(original)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        passing(before)
        result = await original(*args, **kwargs)
        passing(after)
        return result

    is_async = original.__code__.co_flags & 0x80
    setattr(owner, name, awaited if is_async else wrapped)


def wrap_pki(fate: Fate) -> None:
    from pki.audit.log import LogKey
    from pki.issuing.authority import Authority
    from pki.issuing.csr import IssuanceRequest

    parse = IssuanceRequest.parse

    def parsed(*args: Any, **kwargs: Any) -> Any:
        request = parse(*args, **kwargs)
        fate.passes("csr-parsed")
        return request

    IssuanceRequest.parse = parsed  # type: ignore[method-assign]
    around(Authority, "draft", fate, after="draft-made")
    around(Authority, "sign_der", fate, before="unsigned", after="signed")
    around(Authority, "sign_der", fate, before="elsewhere-unsigned", after="elsewhere-signed")
    around(LogKey, "sign", fate, before="checkpoint-unsigned")


def put_keys_elsewhere() -> None:
    from pki.keys import MemoryKey

    MemoryKey.is_in_memory = property(lambda self: False)  # type: ignore[method-assign,assignment]


def wrap_store(fate: Fate) -> None:
    """Commands pass a step when all is done but the commit, and one when the commit is done."""
    from sqlalchemy import Engine, event

    from twisted_mesh.stores import transactions
    from twisted_mesh.stores.sql import SqlStore

    under_way = threading.local()
    apply_all: Callable[..., Sequence[Any]] = transactions.apply_all

    def applied(engine: Engine, commands: Sequence[Any]) -> Sequence[Any]:
        under_way.commands = commands
        try:
            outcomes = apply_all(engine, commands)
        finally:
            under_way.commands = ()
        for command, outcome in zip(commands, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                for step in steps_of(command):
                    fate.passes(f"{step}-committed")
                    fate.passes(f"logged-{step}-committed")
        return outcomes

    def committing(_: object) -> None:
        for command in getattr(under_way, "commands", ()):
            for step in steps_of(command):
                fate.passes(f"{step}-uncommitted")
                fate.passes(f"logged-{step}-uncommitted")

    transactions.apply_all = applied  # type: ignore[assignment]
    event.listen(Engine, "commit", committing)
    around(SqlStore, "start", fate, after="store-opened")


def steps_of(command: Any) -> Iterator[str]:
    """What a command of the store is a step of."""
    from pki.audit.log import Act
    from twisted_mesh.stores import commands

    names: dict[type[Any], str] = {
        commands.RecordIntent: "intent",
        commands.RecordCertificate: "certificate",
        commands.RecordIssue: "issue",
        commands.Revoke: "revocation",
        commands.WriteOff: "write-off",
        commands.TakeCrlNumber: "number",
        commands.ExtendLog: "tiles",
        commands.SaveCheckpoint: "checkpoint",
    }
    if type(command) in names:
        yield names[type(command)]
    elif isinstance(command, commands.RecordAct) and command.entry.act in (Act.START, Act.STOP):
        yield str(command.entry.act)


def wrap_web(fate: Fate) -> None:
    """Answers that are cut off half way, and answers that are out when their sender is gone."""
    from twisted_mesh.http.request import BoundedRequest
    from twisted_mesh.http.whole_request import WholeRequest

    for kind in (BoundedRequest, WholeRequest):
        wrap_answers(kind, fate)


def wrap_answers(kind: Any, fate: Fate) -> None:
    respond = kind.respond

    def responding(self: Any, status: int, body: bytes, content_type: str) -> None:
        is_yes, path = status in (200, 201), self.path
        if is_yes and path == _REVOKE:
            fate.passes("revocation-unanswered")
        if is_yes and path == _SIGN and fate.meets("answer-half-written"):
            self.channel = Half(self.channel)
            end = True
        else:
            done = {_SIGN: "answer-written", _REVOKE: "revocation-answered"}
            end = is_yes and path in done and fate.meets(done[path])
        if end:
            from twisted.internet import reactor

            # By then the reactor has handed to the kernel whatever it is going to.
            reactor.callLater(0.05, fate.die)  # type: ignore[attr-defined]
        respond(self, status, body, content_type)

    kind.respond = responding


class Half:
    """A channel that lets half of an answer through."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def write(self, data: bytes) -> None:
        self._channel.write(data[: len(data) // 2])

    def requestDone(self, request: Any) -> None:
        pass

    def request_done(self) -> None:
        pass


def wrap_publishing(fate: Fate) -> None:
    from twisted_mesh.ca.revocation import crl

    around(crl, "sign_crl", fate, before="crl-unsigned", after="crl-signed")


def wrap_logs(fate: Fate) -> None:
    from twisted_mesh.ct.log_client import LogClient

    around(LogClient, "add_pre_chain", fate, before="log-unasked", after="log-answered")


def wrap_service(fate: Fate) -> None:
    from twisted_mesh.stores.sql import SqlStore
    from twisted_mesh.taps import ca

    loading: Callable[..., Any] = ca.load_or_create

    async def loaded(*args: Any, **kwargs: Any) -> Any:
        result = await loading(*args, **kwargs)
        fate.passes("authorities-loaded")
        return result

    ca.load_or_create = loaded  # type: ignore[assignment]
    around(ca.CaService, "stopService", fate, before="stop-begun")
    around(SqlStore, "stop", fate, before="store-closing")
    around(SqlStore, "_stopped", fate, after="store-closed")


def main(arguments: Sequence[str]) -> None:
    step, number, separator, *rest = arguments
    if step not in STEPS or separator != "--":
        raise SystemExit(f"usage: dying STEP N -- ARGUMENTS; STEP is one of {', '.join(STEPS)}")
    fate = Fate(step, int(number))
    if step in ELSEWHERE:
        put_keys_elsewhere()
    for wrap in (wrap_pki, wrap_store, wrap_web, wrap_publishing, wrap_logs, wrap_service):
        wrap(fate)
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", *rest]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
