"""Attests a process of this machine, by what the kernel says of the other end of a unix socket."""

import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Self
from weakref import WeakKeyDictionary

from attrs import define, field
from zope.interface import implementer

from pki.errors import PkiError
from pki.policy.policy import NoProof
from pki.policy.selector import KINDS, Selector
from twisted_mesh.attest.cgroup import unit_of
from twisted_mesh.attest.container_cgroup import Container, container_of
from twisted_mesh.attest.credentials import Credentials
from twisted_mesh.attest.evidence import Attestation, Evidence, WithoutChallenge, seen
from twisted_mesh.attest.handle import ProcessGone, ProcessHandle, Unreadable, has_peer_handles
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.attest.kinds import DOCKER, K8S, SYSTEMD
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.attest.users import UserNames, user_name


@define
class _Recorded:
    """What cannot change as long as a connection lasts."""

    uid: int
    pid: int
    proof: str
    selectors: frozenset[Selector]
    pid_in_proc: int | None = None

    @classmethod
    def of(cls, connected: socket.socket) -> "_Recorded":
        """Raises :class:`NoProof` where nobody is connected any more."""
        by = Credentials.of_peer(connected)
        return cls(by.uid, by.pid, f"unix:uid:{by.uid}", _owned(by))


@implementer(IAttestor)
@define(eq=False, repr=False)
class ProcessAttestor(WithoutChallenge):
    """``unix:uid``, ``unix:gid``, ``unix:user`` and ``systemd:unit`` of the process that connected.

    ``systemd:id`` is the same as ``systemd:unit``, as SPIRE spells it. Of a process in a container there is more, where
    somebody is asked for it: see :class:`LocalWorkloads`.

    User and groups are those that the kernel recorded when it connected: another program that it
    has become since, or another user, changes nothing. A process that has exited is refused, as far
    as the kernel can tell: Linux from 6.5 can for certain, and only there the unit is attested.
    Which program it runs is no selector: every Python service is the same interpreter.
    """

    names: UserNames
    containers: LocalWorkloads | None = None
    name = "process"
    kinds = (
        *(KINDS[kind] for kind in ("unix:uid", "unix:gid", "unix:user", "systemd:unit")),
        *(*SYSTEMD, *DOCKER, *K8S),
    )
    _recorded: "WeakKeyDictionary[socket.socket, _Recorded]" = field(
        factory=WeakKeyDictionary, init=False
    )

    @classmethod
    def of(cls, means: Means) -> Self:
        """One that asks this machine for the names of users."""
        return cls(UserNames(means.reactor), means.containers)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """Whose the process is, and which unit's. Raises :class:`NoProof` where it is not there any more."""
        connected = evidence.process
        if connected is None:
            return None
        recorded = self._recorded.get(connected)
        if recorded is None:
            recorded = self._recorded[connected] = _Recorded.of(connected)
        user = await self.names.of(recorded.uid)
        # Last, so that it is alive when this is answered.
        unit = _unit(connected, recorded)
        selectors = recorded.selectors | _named(user, unit)
        found = Attestation(recorded.proof, selectors, uid=recorded.uid)
        return found if self.containers is None else await self.containers.add(connected, found)


def hints(evidence: Evidence) -> Mapping[str, str]:
    """What else may help people to recognise the process, and decides nothing; empty where nothing is known.

    ``executable``: the program that it runs at this moment.
    """
    connected = evidence.process
    try:
        handle = ProcessHandle.of_peer(connected) if connected is not None else None
        if handle is None:
            return {}
        with handle:
            return {"executable": handle.executable()}
    except PkiError:
        return {}


def selectors_of_process(pid: int) -> frozenset[Selector]:
    """Those that the process with this PID would be attested if it connected now. Blocks.

    Raises :class:`ProcessGone`; :class:`Unreadable` where it may not be looked at.
    """
    with ProcessHandle.of_pid(pid) as handle:
        by = Credentials.parse_status(handle.read("status"))
        unit = unit_of(handle.read("cgroup")) if has_peer_handles() else None
    return _owned(by) | _named(user_name(by.uid), unit)


def container_of_process(pid: int) -> Container | None:
    """The container that it is in, of which more may be attested; None also where that is not to be seen. Blocks."""
    try:
        with ProcessHandle.of_pid(pid) as handle:
            return container_of(handle.read("cgroup"))
    except PkiError:
        return None


def _unit(connected: socket.socket, recorded: _Recorded) -> str | None:
    """The systemd unit of a peer that is there still. Raises :class:`NoProof` where it is not."""
    try:
        handle = ProcessHandle.of_peer(connected, recorded.pid_in_proc)
        if handle is None:
            _must_be_somebody(recorded.pid)
            return None
        with handle:
            unit = _unit_of(handle)
            recorded.pid_in_proc = handle.pid
            return unit
    except (ProcessGone, Unreadable) as error:
        raise NoProof(
            f"the process that connected is not there to vouch for this request ({error}): connect again, and stay "
            "until the answer is there"
        ) from None


def _unit_of(handle: ProcessHandle) -> str | None:
    try:
        return unit_of(handle.read("cgroup"))
    except Unreadable:
        return None


def _must_be_somebody(pid: int) -> None:
    """Without a pidfd of the peer: whether its PID is anybody's at all. Raises :class:`ProcessGone`."""
    if pid <= 0:
        return
    try:
        with ProcessHandle.of_pid(pid) as handle:
            handle.must_live()
    except Unreadable:
        return


def _owned(by: Credentials) -> frozenset[Selector]:
    return seen("unix:uid", by.uid) | seen("unix:gid", *by.gids)


@lru_cache(maxsize=1024)
def _named(user: str | None, unit: str | None) -> frozenset[Selector]:
    users = seen("unix:user", user) if user is not None else frozenset()
    if unit is None:
        return users
    return users | seen("systemd:unit", unit) | seen("systemd:id", unit)
