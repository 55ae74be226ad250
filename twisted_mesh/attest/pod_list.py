"""The kubelet's pod list, and what it says of one container: the selectors of its pod."""

from collections.abc import Iterator, Sequence

import msgspec
from attrs import frozen

from pki.policy.selector import Selector
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.attest.k8s_pod import (
    ContainerStatus,
    Pod,
    container_selectors,
    pod_selectors,
)
from twisted_mesh.attest.local_api import NotTold

#: By which the kubelet says which static pod it has read from a file: its cgroup is called so.
_CONFIG_HASH = "kubernetes.io/config.hash"


class _Pods(msgspec.Struct, frozen=True):
    items: list[Pod] | None
    """It is always there; of no pods it may be null."""


_decode = msgspec.json.Decoder(_Pods).decode


@frozen
class PodList:
    """The pods of a node, at one moment."""

    pods: Sequence[Pod]

    @classmethod
    def parse(cls, body: bytes) -> "PodList":
        """Of ``GET /pods``. Raises :class:`NotTold`."""
        try:
            return cls(_decode(body).items or ())
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise NotTold("what the kubelet answers is no list of pods") from None

    def selectors_of(self, container: Container) -> frozenset[Selector] | None:
        """What is said of a container that runs; None where it is none, or not yet. Raises :class:`NotTold` where two
        pods have it, or another pod than its cgroup says."""
        found = [
            (pod, status)
            for pod in self.pods
            for status in _own(pod)
            if status.container_id.partition("://")[2] == container.id
        ]
        if len(found) > 1:
            raise NotTold(f"the kubelet says of {len(found)} pods that they have one container")
        for pod, status in found:
            if container.pod_uid is not None and container.pod_uid not in _uids(pod):
                raise NotTold(
                    "the kubelet says of another pod than the cgroup that it has the container"
                )
            if status.state.running is not None:
                return pod_selectors(pod) | container_selectors(status)
        return None


def _uids(pod: Pod) -> set[str]:
    """What the names of cgroups call it."""
    found = {pod.metadata.uid, (pod.metadata.annotations or {}).get(_CONFIG_HASH, "")}
    return found - {""}


def _own(pod: Pod) -> Iterator[ContainerStatus]:
    """The containers of its own: not what somebody has put beside them to debug it."""
    yield from pod.status.container_statuses or ()
    yield from pod.status.init_container_statuses or ()
