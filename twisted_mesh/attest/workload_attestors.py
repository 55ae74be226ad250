"""Who is asked about the containers of this machine's processes, as options and files say it.

::

    [docker]
    env = ["ENVIRONMENT"]

    [[podman]]
    socket = "/run/user/1000/podman/podman.sock"

    [k8s]
    kubelet = "https://10.0.0.7:10250"
    ca_file = "/etc/kubernetes/pki/ca.crt"
    token_file = "/run/secrets/kubernetes.io/serviceaccount/token"
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import Malformed, PkiError, discreet
from twisted_mesh.attest.attestors_file import absolute, settings_of
from twisted_mesh.attest.container_runtime import ROOT, ContainerRuntime, RuntimeSettings
from twisted_mesh.attest.container_source import ContainerSource
from twisted_mesh.attest.handle import has_peer_handles
from twisted_mesh.attest.kubelet import Kubelet, KubeletSettings
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.http.address import split_url
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.state.directory import read_trusted

#: Where a runtime of root's is by itself.
_SOCKETS = {"docker": "/run/docker.sock", "podman": "/run/podman/podman.sock"}
_OF_POD = "/run/secrets/kubernetes.io/serviceaccount"
_KUBELET = "https://127.0.0.1:10250"
#: What the kubelet listens on, secure and read-only.
_PORTS = {"https": 10250, "http": 10255}
_USERS_OWN = re.compile(r"(?:/var)?/run/user/(0|[1-9][0-9]{0,9})/")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LARGEST = 64 * 1024
_MOST_SOURCES = 64

Settings = RuntimeSettings | KubeletSettings


class _Runtime(msgspec.Struct, forbid_unknown_fields=True):
    socket: str | None = None
    user: int | None = None
    env: list[str] = []


class _Kubelet(msgspec.Struct, forbid_unknown_fields=True):
    kubelet: str = _KUBELET
    ca_file: str | None = None
    token_file: str | None = None
    node_name: str = ""
    skip_verification: bool = False


@frozen
class WorkloadAttestors:
    """Who is asked, in this order."""

    settings: Sequence[Settings] = ()
    path: Path | None = None
    """The file that says so, which is read again at will."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> "WorkloadAttestors":
        """Of ``docker``, ``podman:/run/podman/podman.sock``, ``k8s:https://node7:10250``. Raises :class:`Malformed`."""
        found = []
        for word in words:
            kind, colon, place = word.partition(":")
            where = f"--workload-attestor {discreet(word, 100)}"
            if kind not in _READERS or (colon and not place):
                raise Malformed(
                    f"{where}: write docker[:SOCKET], podman[:SOCKET] or k8s[:KUBELET-URL]"
                )
            member = "kubelet" if kind == "k8s" else "socket"
            found.append(_READERS[kind]({member: place} if place else {}, where))
        return cls(tuple(found))

    @classmethod
    def read(cls, path: Path) -> "WorkloadAttestors":
        """Of a TOML file. Raises :class:`PkiError` with everything that is wrong, also with who may change it."""
        import tomllib  # many an agent has no such file

        what = "--workload-attestors"
        try:
            tables = tomllib.loads(read_trusted(path, what, _LARGEST).decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:  # TOML's and Unicode's are ValueErrors
            raise Malformed(f"{what} {path}: {discreet(str(error), 300)}") from None
        wrong = [
            f"there is no table [{discreet(name, 40)}] here: there are {', '.join(_READERS)}"
            for name in tables
            if name not in _READERS
        ]
        found = []
        for kind, reader in _READERS.items():
            said = tables.get(kind, [])
            for number, table in enumerate(said if isinstance(said, list) else [said], 1):
                where = f"[{kind}]" if not isinstance(said, list) else f"[[{kind}]] {number}"
                try:
                    found.append(reader(table, where))
                except PkiError as error:
                    wrong.append(str(error))
        if len(found) > _MOST_SOURCES:
            wrong.append(f"there are {len(found)} of them, and at most {_MOST_SOURCES}")
        if wrong:
            raise Malformed(f"{what} {path}: {'; '.join(wrong)}")
        return cls(tuple(found), path)

    def local_workloads(
        self, reactor: IReactor, *, requires_pq: bool = False
    ) -> LocalWorkloads | None:
        """What asks them; None where nobody is to be asked, ever.

        Raises :class:`Malformed` where this kernel does not tell a caller for certain.
        """
        if not self.settings and self.path is None:
            return None
        return LocalWorkloads(reactor, self.sources(reactor, requires_pq=requires_pq))

    def sources(self, reactor: IReactor, *, requires_pq: bool = False) -> Sequence[ContainerSource]:
        """Each of them. Raises :class:`Malformed` where this kernel does not tell a caller for certain."""
        if self.settings and not has_peer_handles():
            raise Malformed(
                "--workload-attestor needs Linux 6.5 or later: before, another process could have come to bear the PID "
                "of a caller"
            )
        return [
            Kubelet(reactor, one, requires_pq=requires_pq)
            if isinstance(one, KubeletSettings)
            else ContainerRuntime(reactor, one)
            for one in self.settings
        ]


def _runtime(kind: str) -> Callable[[object, str], RuntimeSettings]:
    def read(table: object, where: str) -> RuntimeSettings:
        said = settings_of(table, _Runtime, where)
        path = absolute((said.socket or _SOCKETS[kind]).removeprefix("unix://"), where)
        if (objection := too_long(path)) is not None:
            raise Malformed(f"{where}: the socket's path {objection}")
        own = _USERS_OWN.match(str(path))
        user = said.user if said.user is not None else int(own[1]) if own else ROOT
        if not 0 <= user < 2**32 - 1:
            raise Malformed(f"{where}: user is the number of one, like 1000")
        for name in said.env:
            if not _VARIABLE.fullmatch(name):
                raise Malformed(f"{where}: env: {discreet(name, 60)!r} is no name of a variable")
        return RuntimeSettings(path, user, tuple(said.env))

    return read


def _kubelet(table: object, where: str) -> KubeletSettings:
    said = settings_of(table, _Kubelet, where)
    url = split_url(said.kubelet, _PORTS)
    if url is None:
        raise Malformed(
            f"{where}: {discreet(said.kubelet, 100)!r} is no kubelet: write https://HOST:10250 or, for its read-only "
            "port, http://127.0.0.1:10255"
        )
    scheme, host, port = url
    if scheme == "http" and (said.ca_file or said.token_file or said.skip_verification):
        raise Malformed(
            f"{where}: the read-only port knows no certificates and no tokens: use https"
        )
    if said.skip_verification and said.ca_file:
        raise Malformed(f"{where}: ca_file and skip_verification contradict each other")
    if (scheme == "http" or said.skip_verification) and not _is_loopback(host):
        raise Malformed(
            f"{where}: without a certificate that is verified the kubelet is asked on this machine only, where the "
            "kernel says who listens: write 127.0.0.1, or name ca_file"
        )
    if scheme == "http":
        return KubeletSettings(scheme, host, port)
    ca_file = None if said.skip_verification else said.ca_file or f"{_OF_POD}/ca.crt"
    return KubeletSettings(
        scheme,
        host,
        port,
        None if ca_file is None else absolute(ca_file, where),
        said.node_name,
        absolute(said.token_file or f"{_OF_POD}/token", where),
        said.skip_verification,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_READERS: Mapping[str, Callable[[object, str], Settings]] = {
    "docker": _runtime("docker"),
    "podman": _runtime("podman"),
    "k8s": _kubelet,
}
