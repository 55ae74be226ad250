"""The systemd unit of a process, from its ``/proc/PID/cgroup`` (cgroups(7))."""

from collections.abc import Iterator
from functools import lru_cache

from twisted_mesh.attest.evidence import seen

_V2 = (b"0", b"")
_V1 = b"name=systemd"


@lru_cache(maxsize=256)
def unit_of(cgroups: bytes) -> str | None:
    """The service or scope that systemd started the process in; None where it did not, or that is not certain.

    As systemd reads it itself (``cg_path_get_unit``): below slices, the *outermost* one. What is
    further in belongs to that unit's owner, who may call it what he likes: a user's own systemd
    runs ``user@1000.service/app.slice/api.service``, and that is not ``api.service``.
    """
    found = {unit for path in _paths(cgroups) if (unit := _unit(path)) is not None}
    # A hierarchy that systemd does not use has everybody at its top; two that differ say nothing.
    return found.pop() if len(found) == 1 else None


def _paths(cgroups: bytes) -> Iterator[bytes]:
    # Only \n ends a line: the name of a cgroup may hold anything else that splitlines() takes for an end.
    for line in cgroups.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if (number, controllers) == _V2 or controllers == _V1:
            yield path


def _unit(path: bytes) -> str | None:
    for part in path.decode("ascii", "replace").split("/")[1:]:
        if part.endswith(".slice"):
            continue
        # systemd puts an underscore before a name that a file of the kernel could have.
        unit = part.removeprefix("_")
        is_one = unit.endswith((".service", ".scope")) and seen("systemd:unit", unit)
        return unit if is_one else None
    return None
