"""Real processes on the workload socket: alive, exiting, becoming others, and others under their PIDs."""

import os
import socket

import pytest
from twisted.internet.defer import Deferred

from pki.policy.policy import NoProof
from pki.policy.selector import Selector
from tests.twisted_mesh.attest.processes import (
    STRANGER,
    Transport,
    calling,
    only_linux,
    only_root,
    open_descriptors,
    outcome,
    process_attestor,
    process_with_pid,
)
from tests.twisted_mesh.attest.processes import Caller as Process
from tests.twisted_mesh.workload.fake_issuer import Turning
from twisted_mesh.attest import handle
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.users import AT_ONCE, PATIENCE, UserNames
from twisted_mesh.workload.caller import Caller, Callers

pytestmark = only_linux


def attested(process: Process, reactor: Turning) -> Caller:
    return outcome(Callers(process_attestor(), reactor).of(Transport(process.connected)))


def test_it_is_attested_once_for_its_connection() -> None:
    callers = Callers(process_attestor(), Turning())
    with calling() as process:
        first = outcome(callers.of(Transport(process.connected)))
        assert first.pid == process.pid
        assert first.uid == os.geteuid()
        assert Selector("unix:uid", str(os.geteuid())) in first.selectors
        assert outcome(callers.of(Transport(process.connected))) is first
        assert not first.has_gone()


@only_root
def test_another_user_is_told_apart() -> None:
    with calling(uid=STRANGER, gid=STRANGER, groups=[]) as process:
        assert Selector("unix:uid", str(STRANGER)) in attested(process, Turning()).selectors


def test_its_exit_is_told_at_once_though_nobody_has_waited_for_it() -> None:
    reactor, told = Turning(), list[str]()
    with calling() as process:
        caller = attested(process, reactor)
        caller.watch(lambda: told.append("gone"))
        process.exit_unnoticed()
        reactor.turn()
        assert told == ["gone"]
        assert caller.has_gone()
        assert reactor.readers == []


def test_its_exit_is_seen_though_a_child_has_its_connection() -> None:
    """fork(2) gives the socket on; what was attested was the parent."""
    with calling(then="leave") as process, pytest.raises(NoProof):
        attested(process, Turning())


def test_its_exit_is_seen_without_anybody_watching() -> None:
    with calling() as process:
        caller = attested(process, Turning())
        process.exit()
        assert caller.has_gone()


@only_root
@pytest.mark.parametrize("is_watched", [False, True], ids=["unwatched", "watched"])
def test_who_bears_its_pid_next_is_not_it(is_watched: bool) -> None:
    reactor = Turning()
    with calling() as process:
        caller = attested(process, reactor)
        if is_watched:
            caller.watch(lambda: None)
        process.exit()
        with process_with_pid(process.pid):
            assert caller.has_gone()


@pytest.mark.parametrize("is_watched", [False, True], ids=["unwatched", "watched"])
def test_an_execve_of_the_very_same_file_makes_it_another(is_watched: bool) -> None:
    reactor = Turning()
    with calling(then="become") as process:
        caller = attested(process, reactor)
        if is_watched:
            caller.watch(lambda: None)
        assert not caller.has_gone()
        process.become()
        assert caller.has_gone()


def test_watching_leaves_no_descriptor() -> None:
    reactor = Turning()
    with calling() as process:
        caller = attested(process, reactor)
        before = open_descriptors()
        stops = [caller.watch(lambda: None) for _ in range(3)]
        assert open_descriptors() == before + 1
        for stop in stops:
            stop()
            stop()
        assert open_descriptors() == before
        assert reactor.readers == []
        assert not caller.has_gone()
        assert open_descriptors() == before


def test_a_closed_connection_is_nobodys() -> None:
    with calling() as process:
        caller = attested(process, Turning())
        process.connected.close()
        assert caller.has_gone()


def test_an_older_kernel_watches_by_the_pid_that_it_has_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handle, "SO_PEERPIDFD", 9999)
    reactor, told = Turning(), list[str]()
    with calling() as process:
        caller = attested(process, reactor)
        caller.watch(lambda: told.append("gone"))
        process.exit()
        reactor.turn()
        assert told == ["gone"]


def test_what_is_no_unix_socket_is_refused() -> None:
    with pytest.raises(NoProof, match="unix socket"):
        outcome(Callers(process_attestor(), Turning()).of(object()))


def test_of_many_who_come_at_once_only_a_few_are_attested_together() -> None:
    """More names than that are not looked up at once: the others would be attested without theirs."""
    reactor, asked = Turning(), list[Deferred[str]]()
    together = process_attestor()
    attest = together.attest

    async def slowly(evidence: Evidence) -> Attestation | None:
        asked.append(Deferred())
        await asked[-1]
        return await attest(evidence)

    together.attest = slowly  # type: ignore[method-assign]
    callers = Callers(together, reactor)
    pairs = [socket.socketpair(socket.AF_UNIX) for _ in range(3 * AT_ONCE)]
    found = [Deferred.fromCoroutine(callers.of(Transport(ours))) for ours, _ in pairs]
    for turn in range(1, 4):
        assert len(asked) == turn * AT_ONCE
        for one in asked[-AT_ONCE:]:
            one.callback("")
    assert all(one.called for one in found)
    for pair in pairs:
        for end in pair:
            end.close()


def test_any_number_who_come_while_a_name_is_looked_up_are_attested_once_it_is_there() -> None:
    """Each of them is attested at once then, and ends its turn: not one within the other, without end."""
    reactor, slow = Turning(), Deferred[str | None]()
    callers = Callers(ProcessAttestor(UserNames(reactor, lambda *_: slow)), reactor)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = [Deferred.fromCoroutine(callers.of(Transport(ours))) for _ in range(1000)]
        slow.callback("somebody")
        assert all(one.called for one in found)
        assert callers._turns.tokens == AT_ONCE


def test_a_directory_that_hangs_keeps_nobody_for_longer_than_its_own_name() -> None:
    reactor = Turning()
    callers = Callers(ProcessAttestor(UserNames(reactor, lambda *_: Deferred())), reactor)
    pairs = [socket.socketpair(socket.AF_UNIX) for _ in range(2 * AT_ONCE)]
    found = [Deferred.fromCoroutine(callers.of(Transport(ours))) for ours, _ in pairs]
    reactor.pump([PATIENCE, PATIENCE])
    assert all(one.called for one in found)
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_process_of_a_namespace_that_we_cannot_look_into_is_known_by_its_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent in a container, and a caller from outside of it: ``/proc`` does not have it."""

    def nowhere(_: object) -> int:
        raise FileNotFoundError("it is in another namespace")

    monkeypatch.setattr(handle.ProcessHandle, "_place", nowhere)
    reactor, told = Turning(), list[str]()
    with calling() as process:
        caller = attested(process, reactor)
        caller.watch(lambda: told.append("gone"))
        assert not caller.has_gone()
        process.exit()
        reactor.turn()
        assert told == ["gone"]
        assert caller.has_gone()
