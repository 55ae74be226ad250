"""Which container and pod a process is in, by the names of its cgroups, some of which its owner chose."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mesh.attest.container_cgroup import Container, container_of

ID = "3ef22611de8606e7ec4a80112e7b2df8817e3b995ebfca2236b0691fb1e5bcca"
OTHER = "567db425af5c7676820ec2ca6fa2e76b698335f45a3fd2635450db8336199ef3"
UID = "2c48913c-b29f-11e7-9350-020968147796"
SYSTEMD_UID = UID.replace("-", "_")
STATIC_UID = "0d7b6c1d5f2a4c3e9b8a7f6e5d4c3b2a"

#: From the kernel's file to container, pod, user, and whether it is in a unit.
FOUND = {
    "docker, cgroupfs, version 1 and 2 (seen)": (
        f"9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n0::/docker/{ID}\n",
        (ID,),
    ),
    "docker, cgroupfs, one controller's hierarchy": (f"4:memory:/docker/{ID}\n0::/\n", (ID,)),
    "docker, systemd": (f"0::/system.slice/docker-{ID}.scope\n", (ID,)),
    "docker, in a slice of somebody's choice": (f"0::/batch.slice/docker-{ID}.scope\n", (ID,)),
    "docker, an exec with its own cgroup below": (
        f"0::/system.slice/docker-{ID}.scope/init\n",
        (ID,),
    ),
    "podman, cgroupfs (seen)": (f"0::/libpod_parent/libpod-{ID}\n", (ID,)),
    "podman, systemd": (f"0::/machine.slice/libpod-{ID}.scope/container\n", (ID,)),
    "podman, in a pod of its own": (
        f"0::/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope\n",
        (ID,),
    ),
    "podman, split, as Quadlet starts it": (
        f"0::/system.slice/web.service/libpod-payload-{ID}\n",
        (ID, None, None, True),
    ),
    "podman without root": (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n",
        (ID, None, 1000),
    ),
    "docker without root": (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope\n",
        (ID, None, 1000),
    ),
    "a user's own Quadlet": (
        f"0::/user.slice/user-7.slice/user@7.service/app.slice/web.service/libpod-payload-{ID}\n",
        (ID, None, 7, True),
    ),
    "kubelet and containerd, systemd": (
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD_UID}.slice/"
        f"cri-containerd-{ID}.scope\n",
        (ID, UID),
    ),
    "kubelet and containerd, systemd, a guaranteed pod": (
        f"0::/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope\n",
        (ID, UID),
    ),
    "kubelet and CRI-O, systemd": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD_UID}.slice/"
        f"crio-{ID}.scope/container\n",
        (ID, UID),
    ),
    "kubelet and docker, systemd": (
        f"1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD_UID}.slice/"
        f"docker-{ID}.scope\n0::/\n",
        (ID, UID),
    ),
    "kubelet, cgroupfs": (
        f"11:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n",
        (ID, UID),
    ),
    "kubelet, cgroupfs, a guaranteed pod": (f"0::/kubepods/pod{UID}/{ID}\n", (ID, UID)),
    "kubelet and CRI-O, cgroupfs": (f"0::/kubepods/besteffort/pod{UID}/crio-{ID}\n", (ID, UID)),
    "a static pod": (
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC_UID}.slice/"
        f"cri-containerd-{ID}.scope\n",
        (ID, STATIC_UID),
    ),
    "kubelet by systemd, containerd not": (
        f"0::/system.slice/containerd.service/kubepods-burstable-pod{SYSTEMD_UID}.slice:cri-containerd:{ID}\n",
        (ID, UID),
    ),
    "the same at the top": (
        f"4:memory:/kubepods-besteffort-pod{SYSTEMD_UID}.slice:cri-containerd:{ID}\n",
        (ID, UID),
    ),
    "a node that is a container, seen from inside": (
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SYSTEMD_UID}.slice/"
        f"cri-containerd-{ID}.scope\n",
        (ID, UID),
    ),
    "the same, cgroupfs": (f"0::/kubelet/kubepods/besteffort/pod{UID}/{ID}\n", (ID, UID)),
    "a node that is a container, seen from outside": (
        f"0::/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SYSTEMD_UID}.slice/"
        f"cri-containerd-{OTHER}.scope\n",
        (ID,),
    ),
    "docker in docker": (f"0::/docker/{ID}/docker/{OTHER}\n", (ID,)),
    "docker in docker, systemd": (
        f"0::/system.slice/docker-{ID}.scope/system.slice/docker-{OTHER}.scope\n",
        (ID,),
    ),
    "podman in a pod": (
        f"0::/kubepods/pod{UID}/{ID}/libpod_parent/libpod-{OTHER}\n",
        (ID, UID),
    ),
    "from a sibling in the pod": (f"0::/../cri-containerd-{ID}.scope\n", (ID,)),
    "from another pod": (
        f"0::/../../kubepods-burstable-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope\n",
        (ID, UID),
    ),
    "from a pod of another quality": (
        f"0::/../../../kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD_UID}.slice/"
        f"cri-containerd-{ID}.scope\n",
        (ID, UID),
    ),
    "from another pod, cgroupfs": (f"0::/../../pod{UID}/{ID}\n", (ID, UID)),
    "from a pod of another quality, cgroupfs": (
        f"0::/../../../burstable/pod{UID}/{ID}\n",
        (ID, UID),
    ),
    "from another container of docker": (f"0::/../{ID}\n", (ID,)),
    "from a container, who is without root": (
        f"0::/../../user.slice/user-8.slice/user@8.service/user.slice/libpod-{ID}.scope\n",
        (ID, None, 8),
    ),
    "where some hierarchies hide the pod": (
        f"2:cpu:/../{ID}\n1:name=systemd:/kubepods/pod{UID}/{ID}\n",
        (ID, UID),
    ),
}

NONE = {
    "nothing": "",
    "a process of the machine": "0::/system.slice/api.service\n",
    "at the top": "9:name=systemd:/\n0::/\n",
    "a login that calls a cgroup so": f"0::/user.slice/user-8.slice/session-3.scope/docker/{ID}\n",
    "a user's own service that does": (
        f"0::/user.slice/user-8.slice/user@8.service/app.slice/x.service/docker/{ID}\n"
    ),
    "a service of the machine that does": f"0::/system.slice/evil.service/docker/{ID}\n",
    "one that makes scopes like systemd's": f"0::/system.slice/evil.service/docker-{ID}.scope\n",
    "one that makes a whole tree like the kubelet's": (
        f"0::/system.slice/evil.service/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope\n"
    ),
    "one that makes a name of both kinds": (
        f"0::/system.slice/evil.service/kubepods-pod{SYSTEMD_UID}.slice:cri-containerd:{ID}\n"
    ),
    "what is called like a runtime in a service's own": (
        f"0::/system.slice/evil.service/containerd.service/kubepods-pod{SYSTEMD_UID}.slice:cri-containerd:{ID}\n"
    ),
    "in a container of another kind": f"0::/lxc.payload.c1/docker/{ID}\n",
    "a machine of systemd-nspawn": f"0::/machine.slice/machine-c1.scope/payload/docker/{ID}\n",
    "who watches a container, not in it": f"0::/machine.slice/libpod-conmon-{ID}.scope\n",
    "two hierarchies that differ": f"2:cpu:/docker/{ID}\n1:name=systemd:/docker/{OTHER}\n",
    "two that differ by whose it is": (
        f"2:cpu:/docker/{ID}\n0::/user.slice/user-8.slice/user@8.service/user.slice/docker-{ID}.scope\n"
    ),
    "two pods": f"2:cpu:/kubepods/pod{UID}/{ID}\n3:pids:/kubepods/pod{STATIC_UID}/{ID}\n",
    "too short": f"0::/docker/{ID[:63]}\n",
    "too long": f"0::/docker/{ID}0\n",
    "not hexadecimal": f"0::/docker/{'g' * 64}\n",
    "in capitals": f"0::/docker/{ID.upper()}\n",
    "removed": f"0::/docker/{ID} (deleted)\n",
    "with a line's end in it": f"0::/docker/{ID}\r\n",
    "a pod without its container": f"0::/kubepods/pod{UID}\n",
    "no path from the top": f"0::docker/{ID}\n",
    "a user who is no number": f"0::/user.slice/user@08.service/user.slice/docker-{ID}.scope/x\n",
    "the runtime's own": "0::/docker\n",
}


@pytest.mark.parametrize("name", FOUND)
def test_the_container(name: str) -> None:
    text, (container_id, *more) = FOUND[name]
    found = container_of(text.encode())
    assert found is not None
    expected = (*more, *(None, None, False)[len(more) :])
    assert (found.id, found.pod_uid, found.user, found.is_in_unit) == (container_id, *expected)
    assert all(path.endswith((container_id, f"{container_id}.scope")) for _, path in found.places)


@pytest.mark.parametrize("name", NONE)
def test_no_container(name: str) -> None:
    assert container_of(NONE[name].encode()) is None


def test_where_it_is_is_told_of_each_hierarchy_that_says_it() -> None:
    found = container_of(f"4:memory:/docker/{ID}/own\n2:cpu:/\n0::/docker/{ID}\n".encode())
    assert found == Container(
        ID, places=frozenset({("memory", f"/docker/{ID}"), ("", f"/docker/{ID}")})
    )


@pytest.mark.parametrize("ending", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_directory_that_looks_like_the_end_of_a_line_is_none(ending: str) -> None:
    own = f"0::/system.slice/evil.service/x{ending}0::/docker/{ID}\n"
    assert container_of(own.encode()) is None


_NAMES = st.one_of(
    st.sampled_from([
        "..", "docker", ID, OTHER, f"docker-{OTHER}.scope", f"pod{UID}", "kubepods", "burstable",
        f"kubepods-pod{SYSTEMD_UID}.slice", "x.slice", "evil.service", "containerd.service",
        f"libpod-payload-{OTHER}", "user@8.service", "libpod_parent", "kubelet",
        f"kubepods-pod{SYSTEMD_UID}.slice:cri-containerd:{OTHER}",
    ]),
    st.text(st.characters(codec="utf-8", exclude_characters="/\n\0"), min_size=1, max_size=8),
)  # fmt: skip


@settings(max_examples=30)
@given(st.lists(_NAMES, min_size=1, max_size=6))
def test_nothing_that_a_container_makes_below_its_own_cgroup_makes_it_another(
    below: list[str],
) -> None:
    for text, _ in FOUND.values():
        tops = [line for line in text.splitlines() if not line.endswith(":/")]
        deeper = "".join(f"{line}/{'/'.join(below)}\n" for line in tops)
        found, before = (
            container_of(deeper.encode()),
            container_of("".join(f"{t}\n" for t in tops).encode()),
        )
        assert found == before


@given(st.lists(_NAMES.filter(lambda name: name != ".."), max_size=6))
def test_nothing_that_a_service_makes_below_its_own_cgroup_is_believed_without_the_runtimes_word(
    below: list[str],
) -> None:
    found = container_of(f"0::/{'/'.join(['system.slice', 'evil.service', *below])}\n".encode())
    assert found is None or found.is_in_unit
    assert found is None or found.pod_uid is None


@given(st.lists(_NAMES.filter(lambda name: name != ".."), max_size=6))
def test_nothing_that_a_user_makes_below_his_own_systemd_is_roots(below: list[str]) -> None:
    way = "/".join(["user.slice", "user-8.slice", "user@8.service", *below])
    found = container_of(f"0::/{way}\n".encode())
    assert found is None or found.user == 8


@given(st.binary() | st.lists(st.sampled_from(list(b"0:/.\n_ab"))).map(bytes))
def test_arbitrary_bytes_are_no_container(text: bytes) -> None:
    assert container_of(text) is None
