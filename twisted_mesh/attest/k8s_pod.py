"""Pods and nodes as the Kubernetes API and the kubelet tell of them, and the selectors that SPIRE makes of them."""

from collections.abc import Collection, Iterable

import msgspec

from pki.policy.selector import Selector
from twisted_mesh.attest.evidence import seen


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    """Of what the API has only the fields that are named here are read."""


class OwnerReference(_Shape, frozen=True):
    """What has made a pod: ``ReplicaSet``, ``DaemonSet``."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class ObjectMeta(_Shape, frozen=True):
    """Of any object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class ContainerState(_Shape, frozen=True):
    """What a container does now."""

    running: dict[str, object] | None = None
    """Since when it runs; None where it does not."""


class ContainerStatus(_Shape, frozen=True):
    """One container of a pod, as its kubelet has said it."""

    name: str = ""
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    """``containerd://0123…``; empty before it was made."""
    state: ContainerState = ContainerState()


class PodSpec(_Shape, frozen=True):
    """What a pod is to be."""

    service_account_name: str = ""
    node_name: str = ""


class PodStatus(_Shape, frozen=True):
    """What has become of a pod."""

    phase: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether none of its containers runs, or ever will again."""
        return self.phase in ("Succeeded", "Failed")


class Pod(_Shape, frozen=True):
    """One pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Node(_Shape, frozen=True):
    """One node."""

    metadata: ObjectMeta = ObjectMeta()


def pod_selectors(pod: Pod, label_keys: Collection[str] | None = None) -> frozenset[Selector]:
    """All that is said of a pod as a whole; of its labels those with one of ``label_keys``, or all of them."""
    meta, status = pod.metadata, pod.status
    running = status.container_statuses or []
    starting = status.init_container_statuses or []
    owners = meta.owner_references or []
    return frozenset().union(
        seen("k8s:ns", meta.namespace),
        seen("k8s:sa", pod.spec.service_account_name),
        seen("k8s:pod-name", meta.name),
        seen("k8s:pod-uid", meta.uid),
        seen("k8s:node-name", pod.spec.node_name),
        seen("k8s:pod-label", *labels(meta, label_keys)),
        seen("k8s:pod-owner", *(f"{owner.kind}:{owner.name}" for owner in owners)),
        seen("k8s:pod-owner-uid", *(f"{owner.kind}:{owner.uid}" for owner in owners)),
        seen("k8s:pod-image", *_images(running)),
        seen("k8s:pod-image-count", len(running)),
        seen("k8s:pod-init-image", *_images(starting)),
        seen("k8s:pod-init-image-count", len(starting)),
    )


def container_selectors(container: ContainerStatus) -> frozenset[Selector]:
    """What is said of one container."""
    return seen("k8s:container-name", container.name) | seen(
        "k8s:container-image", *_images([container])
    )


def labels(meta: ObjectMeta, keys: Collection[str] | None) -> list[str]:
    """As selectors write them, ``KEY:VALUE``: those with one of ``keys``, or all of them."""
    found = meta.labels or {}
    return [f"{key}:{value}" for key, value in found.items() if keys is None or key in keys]


def _images(containers: Iterable[ContainerStatus]) -> set[str]:
    """By their names and by their digests, as both may be written in an entry."""
    named = (name for container in containers for name in (container.image, container.image_id))
    return {name for name in named if name}
