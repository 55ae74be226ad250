"""Which unit systemd started a process in, by the names of its cgroups, some of which its owner chose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.policy.selector import Selector
from twisted_mesh.attest.cgroup import unit_of

UNITS = {
    "a service of the machine": (b"0::/system.slice/api.service\n", "api.service"),
    "in slices of slices": (b"0::/a.slice/a-b.slice/api.service\n", "api.service"),
    "a login": (b"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
    "systemd itself": (b"0::/init.scope\n", "init.scope"),
    "an instance": (b"0::/system.slice/system-web.slice/web@1.service\n", "web@1.service"),
    "a name with an escape": (b"0::/system.slice/a\\x2db.service\n", "a\\x2db.service"),
    "a name that a controller could have": (b"0::/system.slice/_cpu.service\n", "cpu.service"),
    "cgroups of version 1": (
        b"5:memory:/other\n1:name=systemd:/system.slice/api.service\n0::/\n",
        "api.service",
    ),
    "both versions": (
        b"1:name=systemd:/system.slice/api.service\n0::/system.slice/api.service\n",
        "api.service",
    ),
    "below a service that has its subtree to itself": (
        b"0::/system.slice/api.service/workers/one.service\n",
        "api.service",
    ),
    "a service of a user's own systemd": (
        b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/api.service\n",
        "user@1000.service",
    ),
}

NONE = {
    "nothing": b"",
    "not below systemd": b"0::/\n",
    "only slices": b"0::/system.slice\n",
    "a container that has a systemd of its own": b"0::/docker/4f1d/system.slice/api.service\n",
    "outside the namespace": b"0::/../../system.slice/api.service\n",
    "two that differ": b"1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n",
    "another controller's": b"4:memory:/system.slice/api.service\n0::/\n",
    "a kind that starts no process": b"0::/system.slice/api.socket\n",
    "removed": b"0::/system.slice/api.service (deleted)\n",
    "not ASCII": "0::/system.slice/apí.service\n".encode(),
    "no bytes of any text": b"0::/system.slice/\xff\xfe.service\n",
    "a name without a stem": b"0::/.service\n",
    "no lines of a cgroup file": b"hello\n0\n0:\n::::\n",
}


@pytest.mark.parametrize("name", UNITS)
def test_the_unit(name: str) -> None:
    text, unit = UNITS[name]
    assert unit_of(text) == unit


@pytest.mark.parametrize("name", NONE)
def test_no_unit(name: str) -> None:
    assert unit_of(NONE[name]) is None


@pytest.mark.parametrize("ending", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_directory_that_looks_like_the_end_of_a_line_is_none(ending: str) -> None:
    own = f"0::/user.slice/user-1000.slice/user@1000.service/x{ending}0::/system.slice/api.service"
    assert unit_of(own.encode() + b"\n") == "user@1000.service"


@given(st.binary() | st.lists(st.sampled_from(list(b"0:/.\n_ab"))).map(bytes))
def test_arbitrary_bytes_give_a_unit_that_an_entry_can_name_or_none(text: bytes) -> None:
    unit = unit_of(text)
    assert unit is None or str(Selector.parse(f"systemd:unit:{unit}")).endswith(unit)
