"""The kubelet's pod list, and what it says of one container: the selectors of its pod, as SPIRE spells them."""

from collections.abc import Iterator, Sequence

import msgspec
from attrs import frozen

from pki.policy.selector import Selector
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.attest.evidence import seen
from twisted_mesh.attest.local_api import NotTold

#: By which the kubelet says which static pod it has read from a file: its cgroup is called so.
_CONFIG_HASH = "kubernetes.io/config.hash"


class _Owner(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    service_account_name: str = ""


class _ContainerState(msgspec.Struct, frozen=True):
    running: dict[str, object] | None = None


class _ContainerStatus(msgspec.Struct, frozen=True):
    name: str = ""
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    container_id: str = msgspec.field(name="containerID", default="")
    state: _ContainerState = _ContainerState()


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    def has_uid(self, uid: str) -> bool:
        """Whether the pod is called so in the names of cgroups."""
        return uid in {self.metadata.uid, (self.metadata.annotations or {}).get(_CONFIG_HASH)}

    def containers(self) -> Iterator[_ContainerStatus]:
        """Those of its own: not what somebody has put beside them to debug it."""
        yield from self.status.container_statuses or ()
        yield from self.status.init_container_statuses or ()


class _Pods(msgspec.Struct, frozen=True):
    items: list[_Pod] | None = None


_decode = msgspec.json.Decoder(_Pods).decode


@frozen
class PodList:
    """The pods of a node, at one moment."""

    pods: Sequence[_Pod]

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
            for status in pod.containers()
            if status.container_id.partition("://")[2] == container.id
        ]
        if len(found) > 1:
            raise NotTold(f"the kubelet says of {len(found)} pods that they have one container")
        for pod, status in found:
            if container.pod_uid is not None and not pod.has_uid(container.pod_uid):
                raise NotTold(
                    "the kubelet says of another pod than the cgroup that it has the container"
                )
            if status.state.running is not None:
                return _of_pod(pod) | _of_container(status)
        return None


def _of_pod(pod: _Pod) -> frozenset[Selector]:
    about, status = pod.metadata, pod.status
    labels, owners = about.labels or {}, about.owner_references or ()
    statuses, initial = status.container_statuses or (), status.init_container_statuses or ()
    each = {
        "ns": [about.namespace],
        "sa": [pod.spec.service_account_name],
        "node-name": [pod.spec.node_name],
        "pod-uid": [about.uid],
        "pod-name": [about.name],
        "pod-label": [f"{key}:{value}" for key, value in labels.items()],
        "pod-owner": [f"{owner.kind}:{owner.name}" for owner in owners],
        "pod-owner-uid": [f"{owner.kind}:{owner.uid}" for owner in owners],
        "pod-image": _images(statuses),
        "pod-image-count": [str(len(statuses))],
        "pod-init-image": _images(initial),
        "pod-init-image-count": [str(len(initial))],
    }
    return frozenset().union(*(seen(f"k8s:{kind}", *values) for kind, values in each.items()))


def _of_container(status: _ContainerStatus) -> frozenset[Selector]:
    return seen("k8s:container-name", status.name) | seen("k8s:container-image", *_images([status]))


def _images(statuses: Sequence[_ContainerStatus]) -> list[str]:
    """Each by its name and by its digest."""
    return [image for status in statuses for image in (status.image, status.image_id) if image]
