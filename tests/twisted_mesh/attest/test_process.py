"""Real processes, attested: other users, groups and programs; dead ones, and others under their PIDs."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pki.errors import PkiError
from pki.policy.policy import NoProof
from pki.policy.selector import Selector, values_of
from tests.pki.policy.kinds import own_kinds
from tests.tools import require_tool
from tests.twisted_mesh.attest.processes import (
    NOBODY,
    STRANGE_GROUP,
    STRANGER,
    Caller,
    Transport,
    calling,
    only_linux,
    only_root,
    open_descriptors,
    outcome,
    process_attestor,
    process_with_pid,
)
from twisted_mesh.attest import handle, process
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.handle import ProcessGone, ProcessHandle, Unreadable
from twisted_mesh.attest.process import hints, selectors_of_process
from twisted_mesh.attest.registry import declare_kinds


def attested(caller: Caller, names: dict[int, str | None] | None = None) -> Attestation:
    attestation = outcome(process_attestor(names).attest(caller.evidence))
    assert attestation is not None
    return attestation


def texts(attestation: Attestation) -> set[str]:
    return set(map(str, attestation.selectors))


def without_peer_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a kernel before 6.5: it knows no such option."""
    monkeypatch.setattr(handle, "SO_PEERPIDFD", 9999)


def test_a_process_of_our_own_user() -> None:
    with calling() as caller:
        attestation = attested(caller, {os.geteuid(): "alice"})
    assert attestation.proof == f"unix:uid:{os.geteuid()}"
    assert attestation.uid == os.geteuid()
    assert {f"unix:uid:{os.geteuid()}", "unix:user:alice"} <= texts(attestation)
    gids = {os.getegid(), *os.getgroups()}
    assert set(values_of("unix:gid", attestation.selectors)) == set(map(str, gids))


@only_root
def test_a_process_of_another_user_and_its_groups() -> None:
    with calling(uid=STRANGER, gid=STRANGE_GROUP, groups=[7, 4711]) as caller:
        attestation = attested(caller)
    assert texts(attestation) == {
        *(f"unix:uid:{STRANGER}", f"unix:gid:{STRANGE_GROUP}", "unix:gid:7", "unix:gid:4711")
    }, "and no unix:user, since that user has no name"
    assert attestation.uid == STRANGER


@only_root
@only_linux
def test_a_process_that_an_outside_tool_made_another_users() -> None:
    become = (require_tool("setpriv"), f"--reuid={NOBODY}", "--regid=12", "--groups=34,56")
    sleeper = subprocess.Popen([*become, "cat"], stdin=subprocess.PIPE)
    with sleeper:
        _wait_until_user(sleeper.pid, NOBODY)
        found = set(map(str, selectors_of_process(sleeper.pid)))
    assert {f"unix:uid:{NOBODY}", "unix:gid:12", "unix:gid:34", "unix:gid:56"} <= found


def _wait_until_user(pid: int, uid: int) -> None:
    while f"Uid:\t{uid}\t" not in Path(f"/proc/{pid}/status").read_text():
        os.sched_yield()


@only_root
def test_of_more_groups_than_pythons_getsockopt_reads_none_is_lost() -> None:
    groups = range(5000, 5400)
    with calling(uid=NOBODY, gid=NOBODY, groups=groups) as caller:
        gids = values_of("unix:gid", attested(caller).selectors)
    assert set(map(int, gids)) == {NOBODY, *groups}


def test_a_user_whose_name_no_entry_could_have_is_attested_without() -> None:
    with calling() as caller:
        for name in ("", "with space", "müller", "line\nfeed", "a:b", "x" * 300):
            assert not values_of("unix:user", attested(caller, {os.geteuid(): name}).selectors)


@only_linux
def test_a_process_that_execs_another_program_keeps_what_was_recorded() -> None:
    with calling() as before, calling(then="exec") as after:
        assert os.readlink(f"/proc/{after.pid}/exe") != os.readlink(f"/proc/{before.pid}/exe")
        assert attested(after) == attested(before)
        assert hints(after.evidence) == {"executable": os.readlink(f"/proc/{after.pid}/exe")}


@only_root
@only_linux
def test_a_process_that_becomes_another_user_after_connecting_is_who_it_was() -> None:
    with calling(then="demote") as caller:
        assert f"Uid:\t{NOBODY}\t" in Path(f"/proc/{caller.pid}/status").read_text()
        assert attested(caller).uid == 0


@only_linux
@pytest.mark.parametrize("how", ["exit", "exit_unnoticed"])
def test_a_process_that_has_exited_is_refused(how: str) -> None:
    with calling() as caller:
        attestor = process_attestor()
        assert outcome(attestor.attest(caller.evidence)) is not None
        getattr(caller, how)()
        with pytest.raises(NoProof, match="has exited"):
            outcome(attestor.attest(caller.evidence))
        with pytest.raises(NoProof, match="has exited"):
            outcome(process_attestor().attest(caller.evidence))
        assert hints(caller.evidence) == {}


@only_linux
def test_a_process_that_left_its_connection_to_another_is_refused() -> None:
    with calling(then="leave") as caller:
        caller.connected.setblocking(False)
        with pytest.raises(BlockingIOError):
            caller.connected.recv(1)  # the connection itself is open
        with pytest.raises(NoProof, match="has exited"):
            outcome(process_attestor().attest(caller.evidence))


@only_linux
def test_a_connection_that_was_closed_meanwhile_is_refused() -> None:
    with calling() as caller:
        attestor = process_attestor()
        assert outcome(attestor.attest(caller.evidence)) is not None
        caller.connected.close()
        with pytest.raises(NoProof):
            outcome(attestor.attest(caller.evidence))


@only_root
@only_linux
@pytest.mark.parametrize("handles", [True, False], ids=["pidfd", "before Linux 6.5"])
def test_another_process_under_the_pid_gives_the_caller_nothing(
    handles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not handles:
        without_peer_handles(monkeypatch)
    monkeypatch.setattr(process, "unit_of", lambda text: "victim.service")
    with calling() as caller:
        caller.exit()
        with process_with_pid(caller.pid):
            assert Path(f"/proc/{caller.pid}/cgroup").read_bytes()
            if handles:
                with pytest.raises(NoProof, match="has exited"):
                    attested(caller)
            else:
                assert not values_of("systemd:unit", attested(caller).selectors)


@only_root
@only_linux
def test_a_pid_that_changes_hands_while_it_is_read_gives_the_caller_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with calling() as caller:

        def swapping(path: str) -> bytes:
            data = handle.read_file(path)
            if path.endswith("/cgroup"):
                caller.exit()
                with process_with_pid(caller.pid):
                    data = handle.read_file(path).replace(b":/", b":/system.slice/victim.service")
            return data

        of_peer = ProcessHandle.of_peer

        def with_a_swap(connected: socket.socket, pid: int | None) -> ProcessHandle | None:
            found = of_peer(connected, pid)
            assert found is not None
            return ProcessHandle(found.descriptor, pid, swapping)

        monkeypatch.setattr(ProcessHandle, "of_peer", with_a_swap)
        before = open_descriptors()
        with pytest.raises(NoProof, match="has exited"):
            attested(caller)
        assert open_descriptors() == before


@only_linux
def test_before_linux_6_5_no_unit_is_attested_and_the_dead_are_refused_where_that_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "unit_of", lambda text: "api.service")
    with calling() as caller:
        assert values_of("systemd:unit", attested(caller).selectors) == ("api.service",)
        without_peer_handles(monkeypatch)
        assert not values_of("systemd:unit", attested(caller).selectors)
        assert f"unix:uid:{os.geteuid()}" in texts(attested(caller))
        assert hints(caller.evidence) == {}
        caller.exit()
        with pytest.raises(NoProof, match="it has exited"):
            attested(caller)


@only_linux
def test_where_proc_may_not_be_read_no_unit_is_attested(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(self: ProcessHandle, name: str) -> bytes:
        raise Unreadable("/proc does not show the process")

    monkeypatch.setattr(ProcessHandle, "read", hidden)
    with calling() as caller:
        assert not values_of("systemd:unit", attested(caller).selectors)


@contextmanager
def _unit_cgroup(name: str) -> Iterator[Path]:
    """A cgroup as systemd would make it for a unit."""
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here, and these cgroups are its own")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            made = Path(where, name)
            with suppress(OSError):
                made.mkdir()
                break
    else:
        pytest.skip("no cgroup of systemd's can be made here")
    try:
        yield made
    finally:
        made.rmdir()


@only_root
@only_linux
def test_a_process_in_a_units_cgroup_has_that_unit_and_loses_it_when_it_is_moved() -> None:
    name = f"mesh-test-{os.getpid()}.service"
    with _unit_cgroup(name) as cgroup, calling() as caller:
        attestor = process_attestor()
        assert not values_of("systemd:unit", attested(caller).selectors)
        (cgroup / "cgroup.procs").write_text(str(caller.pid))
        first = outcome(attestor.attest(caller.evidence))
        assert first is not None
        assert values_of("systemd:unit", first.selectors) == (name,)
        assert values_of("systemd:unit", selectors_of_process(caller.pid)) == (name,)
        (cgroup.parent / "cgroup.procs").write_text(str(caller.pid))
        second = outcome(attestor.attest(caller.evidence))
        assert second is not None
        assert not values_of("systemd:unit", second.selectors)


def test_ten_thousand_attestations_leave_nothing_open() -> None:
    attestor = process_attestor()
    with calling() as caller:
        before = open_descriptors()
        for _ in range(5000):
            assert outcome(attestor.attest(caller.evidence)) is not None
        caller.exit()
        for _ in range(5000):
            with suppress(PkiError):
                outcome(attestor.attest(caller.evidence))
        assert open_descriptors() == before


def test_nothing_is_remembered_of_a_connection_that_is_gone() -> None:
    attestor = process_attestor()
    for _ in range(50):
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            assert outcome(attestor.attest(Evidence.of(Transport(ours)))) is not None
    del ours, theirs
    assert len(attestor._recorded) == 0


@only_linux
def test_the_selectors_of_a_process_are_those_that_it_is_attested() -> None:
    with calling() as caller:
        seen: frozenset[Selector] = selectors_of_process(caller.pid)
        named = {uid: next(iter(values_of("unix:user", seen)), None) for uid in [os.geteuid()]}
        assert seen == attested(caller, named).selectors
        caller.exit_unnoticed()
        with pytest.raises(ProcessGone, match="has exited"):
            selectors_of_process(caller.pid)
        caller.exit()
        with pytest.raises(ProcessGone, match=f"there is no process {caller.pid}"):
            selectors_of_process(caller.pid)


@only_linux
def test_where_no_unit_could_be_attested_none_is_told_of_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "unit_of", lambda text: "api.service")
    assert values_of("systemd:unit", selectors_of_process(os.getpid())) == ("api.service",)
    without_peer_handles(monkeypatch)
    assert not values_of("systemd:unit", selectors_of_process(os.getpid()))


@only_linux
@pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1, 2**31 - 1, 2**31, 2**80])
def test_a_pid_that_nobody_can_have_is_told_in_a_sentence(pid: int) -> None:
    with pytest.raises(PkiError, match=str(pid)) as refusal:
        selectors_of_process(pid)
    assert str(refusal.value).isprintable()


def test_hints_of_what_is_no_process_are_empty() -> None:
    nothing: list[Any] = [None, Transport(None), object()]
    assert [hints(Evidence.of(transport)) for transport in nothing] == [{}, {}, {}]


@only_linux
def test_its_unit_is_told_as_spire_spells_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "unit_of", lambda text: "web@1.service")
    with own_kinds(), calling() as caller:
        declare_kinds()
        found = attested(caller).selectors
    assert values_of("systemd:id", found) == values_of("systemd:unit", found) == ("web@1.service",)
