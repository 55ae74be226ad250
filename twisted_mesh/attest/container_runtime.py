"""Docker's word, or Podman's, on a container: its labels, its image, its environment; by the API that both speak."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field, frozen
from twisted.internet.endpoints import UNIXClientEndpoint

from pki.errors import PkiError
from pki.policy.selector import Selector
from twisted_mesh.attest.container_cgroup import Container, container_of
from twisted_mesh.attest.container_source import Told
from twisted_mesh.attest.credentials import peer_uid
from twisted_mesh.attest.evidence import seen
from twisted_mesh.attest.handle import ProcessHandle
from twisted_mesh.attest.local_api import TIMEOUT, LocalApi, NotTold
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.reach import Reach

ROOT = 0
#: Bytes of what is told of one container, and how many labels of it are taken, in their order.
_LARGEST = 1024 * 1024
MOST_LABELS = 256
_OK, _NOT_FOUND = 200, 404
_HEX = 64


class _State(msgspec.Struct, rename="pascal"):
    running: bool = False
    pid: int = 0


class _Config(msgspec.Struct, rename="pascal"):
    image: str = ""
    labels: dict[str, str] | None = None
    env: list[str] | None = None


class _Inspected(msgspec.Struct, rename="pascal"):
    """Of ``GET /containers/ID/json`` what is of use."""

    id: str
    state: _State
    config: _Config
    image: str = ""


_decode = msgspec.json.Decoder(_Inspected).decode


@frozen
class RuntimeSettings:
    """Where a runtime is asked, and what of its word is taken."""

    socket: Path
    user: int = ROOT
    """Whose it is: only of this user's containers its word counts."""
    env: tuple[str, ...] = ()
    """Names of the variables that become selectors; others may be secrets."""


def _place_of(pid: int) -> Container | None:
    """Where a process is now. Raises :class:`PkiError`."""
    with ProcessHandle.of_pid(pid) as handle:
        return container_of(handle.read("cgroup"))


@define(eq=False, repr=False)
class ContainerRuntime:
    """One runtime at its unix socket. A :class:`ContainerSource`.

    Whoever listens there must be its user, or root, by the kernel's word: what a user says of another's containers, or
    of root's, is nothing to us.
    """

    reactor: IReactor
    settings: RuntimeSettings
    place_of: Callable[[int], Container | None] = _place_of
    root: int = ROOT
    timeout: float = TIMEOUT
    attempts: int = 4
    pause: float = 0.25
    _api: LocalApi = field(init=False)

    def __attrs_post_init__(self) -> None:
        path = str(self.settings.socket)
        self._api = LocalApi(
            self.reactor,
            self.where,
            "localhost",
            lambda: UNIXClientEndpoint(self.reactor, path, timeout=self.timeout),
            lambda: Reach(
                self.where,
                path=path,
                who="container runtime",
                start="start it, or take it from the options",
                seconds=self.timeout,
            ),
            self.timeout,
        )

    @property
    def where(self) -> str:
        """For people."""
        return f"unix:{self.settings.socket}"

    def speaks_of(self, container: Container) -> bool:
        """Of its user's containers, root's being those below nobody's own systemd."""
        return self.settings.user == (ROOT if container.user is None else container.user)

    async def tell(self, container: Container) -> Told | None:
        """See :class:`ContainerSource`."""
        path = f"/containers/{container.id}/json"
        status, body = await self._api.get(path, _LARGEST, self._must_be_its_users)
        if status == _NOT_FOUND:
            return None
        if status != _OK:
            raise NotTold(f"{self.where} answers {status}")
        try:
            found = _decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise NotTold(
                f"{self.where} answers with no container: is it Docker's or Podman's?"
            ) from None
        if found.id != container.id:
            raise NotTold(f"{self.where} answers with another container than was asked for")
        if not found.state.running:
            return None
        return Told(self._selectors(found), self._places(found))

    def _must_be_its_users(self, transport: Any) -> None:
        """Raises :class:`NotTold`."""
        uid, user = peer_uid(transport.getHandle()), self.settings.user
        if uid not in {user, self.root}:
            raise NotTold(
                f"user {uid} listens at {self.where}, whose word counts for the containers of user {user}: name the "
                "socket of that user's runtime"
            )

    def _places(self, found: _Inspected) -> frozenset[tuple[str, str]]:
        """Where its first process is. Raises :class:`NotTold` where that is not in it."""
        pid = found.state.pid
        try:
            if pid <= 0:
                raise NotTold("it tells none")
            place = self.place_of(pid)
        except PkiError as error:
            raise NotTold(
                f"{self.where}: the first process of container {found.id[:12]} is not to be seen ({error}): this "
                "program must see the PIDs that the runtime sees"
            ) from None
        if place is None or place.id != found.id:
            raise NotTold(
                f"{self.where}: process {pid} is not in container {found.id[:12]}, whose first it is said to be: it "
                "has ended, or this program sees other PIDs than the runtime"
            )
        return place.places

    def _selectors(self, found: _Inspected) -> frozenset[Selector]:
        config = found.config
        labels = sorted((config.labels or {}).items())[:MOST_LABELS]
        chosen = [said for said in config.env or () if said.partition("=")[0] in self.settings.env]
        digest = found.image if not _is_bare(found.image) else f"sha256:{found.image}"
        return (
            seen("docker:label", *(f"{key}:{value}" for key, value in labels))
            | seen("docker:env", *chosen)
            | seen("docker:image_id", *filter(None, [config.image]))
            | seen("docker:image_config_digest", *filter(None, [digest]))
        )


def _is_bare(image: str) -> bool:
    return len(image) == _HEX and all(digit in "0123456789abcdef" for digit in image)
