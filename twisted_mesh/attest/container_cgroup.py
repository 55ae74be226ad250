"""The container, and the pod, of a process, from its ``/proc/PID/cgroup`` (cgroups(7)).

What a cgroup is called proves what whoever made it could prove. Above a container only root, through the runtime,
the kubelet or systemd, makes cgroups; in a container, a service that has its subtree to itself, and below a user's
own systemd, their owners make what they like. So the *outermost* container is told, each part of the way to it must
be one that root makes, and where it is not that is told with it. A container in a container is the outer one to
us: only its runtime is asked here, and the inner name is by the grace of whoever has the outer one.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from functools import lru_cache

from attrs import frozen

_ID = "([0-9a-f]{64})"
_POD = "([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})"
_KUBEPODS = "(?:[a-z0-9_]{1,64}-)*kubepods(?:-burstable|-besteffort|-guaranteed)?"
#: Of systemd: Docker, Podman, containerd and CRI-O in turn.
_SCOPE = re.compile(rf"(?:docker|libpod|cri-containerd|crio)-{_ID}\.scope")
#: The same by cgroupfs.
_DIRECTORY = re.compile(rf"(?:libpod-|cri-containerd-|crio-)?{_ID}")
#: Of Podman with ``--cgroups=split``, as in Quadlet's units.
_SPLIT = re.compile(rf"libpod-payload-{_ID}")
_POD_SLICE = re.compile(rf"{_KUBEPODS}-pod{_POD}\.slice")
_POD_DIRECTORY = re.compile(rf"pod{_POD}")
#: Where the kubelet's driver is systemd, and the runtime's is not.
_MIXED = re.compile(rf"{_KUBEPODS}-pod{_POD}\.slice:(?:cri-containerd|crio):{_ID}")
_USERS_SYSTEMD = re.compile(r"user@(0|[1-9][0-9]{0,9})\.service")
_RUNTIMES_OWN = frozenset({"docker", "libpod_parent"})
_QUALITIES = frozenset({"burstable", "besteffort", "guaranteed"})


@frozen
class Container:
    """Which container a process is in, as far as the names of its cgroups say."""

    id: str
    """64 hexadecimal digits, as its runtime calls it."""
    pod_uid: str | None = None
    """Of the Kubernetes pod, as the kubelet writes it; None where there is none, or it does not show from here."""
    user: int | None = None
    """Whose own systemd it is below: that user may have given it any name. None for root's."""
    is_in_unit: bool = False
    """Whether it is below a service or scope, whose owner may have given it any name."""
    places: frozenset[tuple[str, str]] = frozenset()
    """Of each hierarchy that tells: its controllers, and the path down to the container's own cgroup."""


class _At(Enum):
    """What the parts so far were."""

    TOP = auto()
    ABOVE = auto()
    """``..``, of which more is hidden by our own cgroup namespace: what is next may begin in the midst."""
    SLICE = auto()
    UNIT = auto()
    RUNTIME = auto()
    KUBELET = auto()
    KUBEPODS = auto()
    POD = auto()


_SLICES = frozenset({_At.TOP, _At.ABOVE, _At.SLICE})


@lru_cache(maxsize=256)
def container_of(cgroups: bytes) -> Container | None:
    """The outermost container; None where there is none, or what is said differs.

    A hierarchy of version 1 that says nothing is none to the contrary: runtimes do not use all of them.
    """
    found = [place for line in _lines(cgroups) if (place := _place(*line)) is not None]
    if not found:
        return None
    ids, users = {one.id for one in found}, {one.user for one in found}
    pods = {one.pod_uid for one in found if one.pod_uid is not None}
    if len(ids) > 1 or len(users) > 1 or len(pods) > 1:
        return None
    return Container(
        ids.pop(),
        pods.pop() if pods else None,
        users.pop(),
        any(one.is_in_unit for one in found),
        frozenset().union(*(one.places for one in found)),
    )


def _lines(cgroups: bytes) -> Iterator[tuple[str, str]]:
    # Only \n ends a line: the name of a cgroup may hold anything else that splitlines() takes for an end.
    for line in cgroups.split(b"\n"):
        _, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if path.startswith(b"/"):
            yield controllers.decode("ascii", "replace"), path.decode("ascii", "replace")


def _place(controllers: str, path: str) -> Container | None:
    parts = path.split("/")[1:]
    at, pod, user = _At.TOP, None, None
    for index, part in enumerate(parts):
        if part == "..":
            # The kernel writes them first, and nowhere else: nothing can be called so.
            at = _At.ABOVE
            continue
        place = frozenset({(controllers, "/".join(["", *parts[: index + 1]]))})
        if both := _mixed(at, part, parts[index - 1] if index else ""):
            return Container(both[1], both[0], user, False, place)
        if (container := _container(at, part)) is not None:
            return Container(container, pod, user, at is _At.UNIT, place)
        if at in _SLICES and (manager := _USERS_SYSTEMD.fullmatch(part)) and user is None:
            at, user = _At.SLICE, int(manager[1])
            continue
        next_at, seen = _step(at, part)
        if next_at is None:
            return None
        at, pod = next_at, seen or pod
    return None


def _mixed(at: _At, part: str, before: str) -> tuple[str, str] | None:
    """The pod and the container of a part that names both."""
    is_runtimes = at is _At.UNIT and before in {"containerd.service", "crio.service"}
    found = _MIXED.fullmatch(part) if at in _SLICES or is_runtimes else None
    return None if found is None else (_pod_uid(found[1]), found[2])


def _container(at: _At, part: str) -> str | None:
    if at in _SLICES and (found := _SCOPE.fullmatch(part)):
        return found[1]
    if at in {_At.RUNTIME, _At.POD, _At.ABOVE} and (found := _DIRECTORY.fullmatch(part)):
        return found[1]
    if at is _At.UNIT and (found := _SPLIT.fullmatch(part)):
        return found[1]
    return None


def _step(at: _At, part: str) -> tuple[_At | None, str | None]:
    """What the way is after one more part, and the pod that this part names; no way where it leads to none of ours."""
    if at in _SLICES and part.endswith(".slice"):
        pod = _POD_SLICE.fullmatch(part)
        return _At.SLICE, None if pod is None else _pod_uid(pod[1])
    if at in _SLICES and part.endswith((".service", ".scope")):
        return _At.UNIT, None
    if at in {_At.TOP, _At.ABOVE}:
        if part in _RUNTIMES_OWN:
            return _At.RUNTIME, None
        if part == "kubelet":
            return _At.KUBELET, None
    if at in {_At.TOP, _At.ABOVE, _At.KUBELET} and part == "kubepods":
        return _At.KUBEPODS, None
    if at in {_At.KUBEPODS, _At.ABOVE}:
        if part in _QUALITIES:
            return _At.KUBEPODS, None
        if pod := _POD_DIRECTORY.fullmatch(part):
            return _At.POD, _pod_uid(pod[1])
    return None, None


def _pod_uid(written: str) -> str:
    # In the names of slices a dash leads to a slice above.
    return written.replace("_", "-")
