"""Whoever can say more of a container than the kernel does: a runtime, or the kubelet."""

from typing import Protocol

from attrs import frozen

from pki.policy.selector import Selector
from twisted_mesh.attest.container_cgroup import Container


@frozen
class Told:
    """What is said of a container that is running."""

    selectors: frozenset[Selector]
    places: frozenset[tuple[str, str]] | None = None
    """Where its first process is, as :attr:`Container.places`: a caller that is in none of them is not in it, whatever
    its cgroup is called. None where whoever tells knows no process."""


class ContainerSource(Protocol):
    """Asked about one container at a time."""

    @property
    def where(self) -> str:
        """For people: ``unix:/run/docker.sock``."""

    @property
    def attempts(self) -> int:
        """How often it is asked about a container that it does not know, or not as running, yet."""

    @property
    def pause(self) -> float:
        """Seconds between two of them."""

    def speaks_of(self, container: Container) -> bool:
        """Whether its word counts for such a container; else it is not asked."""

    async def tell(self, container: Container) -> Told | None:
        """None where it does not know it, or not as running. Raises :class:`PkiError` where it says nothing, or what
        cannot be."""
