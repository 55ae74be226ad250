"""Stand-ins for a container runtime's API and the kubelet's, at real sockets; their answers are as the real ones'."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field, frozen
from twisted.internet.protocol import Factory, Protocol

from tests.twisted_mesh.grpc.sockets import own_reactor, run

ID = "3ef22611de8606e7ec4a80112e7b2df8817e3b995ebfca2236b0691fb1e5bcca"
OTHER = "567db425af5c7676820ec2ca6fa2e76b698335f45a3fd2635450db8336199ef3"
UID = "2c48913c-b29f-11e7-9350-020968147796"
STATIC_UID = "0d7b6c1d5f2a4c3e9b8a7f6e5d4c3b2a"

#: Of Docker 20.10, to ``GET /containers/ID/json``; what it says besides is left out.
DOCKERS: dict[str, Any] = {
    "Id": ID,
    "Created": "2026-11-29T14:09:30.879187251Z",
    "Path": "sleep",
    "Args": ["3000"],
    "State": {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 16503,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2026-11-29T14:09:31.171465318Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    },
    "Image": "sha256:39cec791d1633f04ee6dffddf3e5f9fe3436b4e190a1cf66449dc9042850c011",
    "Name": "/t1",
    "Config": {
        "Hostname": "3ef22611de86",
        "User": "",
        "Env": ["ENVIRONMENT=prod", "SECRET=hunter2"],
        "Cmd": ["sleep", "3000"],
        "Image": "tiny:1",
        "Volumes": None,
        "Entrypoint": None,
        "Labels": {"com.example.name": "foo"},
    },
}


def a_pod(**changes: Any) -> dict[str, Any]:
    """One as a kubelet tells of it in ``GET /pods``, with one container and one that has set it up."""
    pod: dict[str, Any] = {
        "metadata": {
            "name": "api-5d9f-x7k2p",
            "namespace": "shop",
            "uid": UID,
            "labels": {"app": "api", "empty": ""},
            "annotations": {"kubernetes.io/config.source": "api"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-5d9f", "uid": UID}
            ],
        },
        "spec": {"nodeName": "node7", "serviceAccountName": "api", "hostNetwork": True},
        "status": {
            "phase": "Running",
            "hostIP": "10.0.0.7",
            "podIP": "10.0.0.7",
            "containerStatuses": [
                {
                    "name": "api",
                    "state": {"running": {"startedAt": "2026-11-29T14:00:00Z"}},
                    "image": "docker.io/library/api:1.2",
                    "imageID": f"docker.io/library/api@sha256:{OTHER}",
                    "containerID": f"containerd://{ID}",
                }
            ],
            "initContainerStatuses": [
                {
                    "name": "setup",
                    "state": {"terminated": {"exitCode": 0}},
                    "image": "docker.io/library/setup:1.2",
                    "imageID": f"docker.io/library/setup@sha256:{OTHER}",
                    "containerID": f"containerd://{OTHER}",
                }
            ],
        },
    }
    return _changed(pod, changes)


def a_list(*pods: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}


def said(**changes: Any) -> dict[str, Any]:
    """What Docker says, but for that: ``State__Pid=4711``."""
    return _changed(copy.deepcopy(DOCKERS), changes)


def _changed(found: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Each by its way, like ``metadata__name``."""
    for path, value in changes.items():
        place = found
        *above, last = path.split("__")
        for name in above:
            place = place[name]
        place[last] = value
    return found


def http(body: object, status: int = 200, **headers: str) -> bytes:
    """An answer; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


@frozen
class Question:
    path: str
    headers: Mapping[str, str]


@define(eq=False)
class LocalServer:
    """Answers each question by ``answer``; None for a question that is never answered."""

    answer: Callable[[Question], bytes | None] = lambda _: None
    asked: list[Question] = field(factory=list)
    connections: int = 0
    ends: bool = True
    """Whether it hangs up after an answer."""

    def factory(self) -> Factory:
        return Factory.forProtocol(lambda: _Answering(self))


class _Answering(Protocol):
    transport: Any

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.heard = b""

    def connectionMade(self) -> None:
        self.server.connections += 1

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        head, end, rest = self.heard.partition(b"\r\n\r\n")
        if not end:
            return
        assert not rest
        line, *lines = head.decode().split("\r\n")
        method, path, version = line.split(" ")
        assert (method, version) == ("GET", "HTTP/1.1")
        headers = {name.lower(): value for name, value in (x.split(": ", 1) for x in lines)}
        question = Question(path, headers)
        self.server.asked.append(question)
        answer = self.server.answer(question)
        if answer is not None:
            self.transport.write(answer)
            if self.server.ends:
                self.transport.loseConnection()


async def _closed(port: Any) -> None:
    await port.stopListening()


@contextmanager
def at_a_socket(server: LocalServer) -> Iterator[Path]:
    """Where it listens."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "api.sock")
        port = own_reactor().listenUNIX(str(path), server.factory())
        try:
            yield path
        finally:
            run(_closed(port))


@contextmanager
def at_a_port(factory: Any, host: str = "127.0.0.1") -> Iterator[int]:
    """On which it listens."""
    port = own_reactor().listenTCP(0, factory, interface=host)
    try:
        yield port.getHost().port
    finally:
        run(_closed(port))
