"""A runtime's word on a container: what is taken of it, and when it is no word at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pki.errors import PkiError
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.local_apis import (
    ID,
    OTHER,
    LocalServer,
    at_a_socket,
    http,
    said,
)
from tests.twisted_mesh.attest.processes import only_linux
from tests.twisted_mesh.grpc.sockets import own_reactor, run
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.attest.container_runtime import MOST_LABELS, ContainerRuntime, RuntimeSettings
from twisted_mesh.attest.container_source import Told
from twisted_mesh.attest.handle import ProcessGone
from twisted_mesh.attest.registry import declare_kinds

pytestmark = only_linux

PLACES = frozenset({("", f"/docker/{ID}")})
CONTAINER = Container(ID, places=PLACES)
US = os.geteuid()


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


@define(eq=False)
class Machine:
    """Where processes are, by their PIDs."""

    at: dict[int, Container | None] = field(factory=lambda: {16503: CONTAINER})

    def place_of(self, pid: int) -> Container | None:
        if pid not in self.at:
            raise ProcessGone(f"there is no process {pid}")
        return self.at[pid]


def told(answer: bytes | None, **more: Any) -> Told | None:
    """What is made of one answer."""
    with at_a_socket(LocalServer(lambda _: answer)) as path:
        return asked(path, **more)


def asked(
    path: Path, machine: Machine | None = None, *, env: tuple[str, ...] = (), **more: Any
) -> Told | None:
    more = {"root": US, "timeout": 5.0, **more}
    user = more.pop("user", US)
    place_of = (machine or Machine()).place_of
    runtime = ContainerRuntime(own_reactor(), RuntimeSettings(path, user, env), place_of, **more)
    return run(runtime.tell(CONTAINER))


def texts(found: Told | None) -> set[str]:
    assert found is not None
    return set(map(str, found.selectors))


def test_labels_and_image_come_as_spire_spells_them_and_where_its_first_process_is() -> None:
    found = told(http(said()))
    assert found is not None
    assert found.places == PLACES
    assert texts(found) == {
        "docker:label:com.example.name:foo",
        "docker:image_id:tiny:1",
        "docker:image_config_digest:sha256:39cec791d1633f04ee6dffddf3e5f9fe3436b4e190a1cf66449dc9042850c011",
    }


def test_it_is_asked_about_that_container_and_nothing_else() -> None:
    server = LocalServer(lambda _: http(said()))
    with at_a_socket(server) as path:
        asked(path)
    (question,) = server.asked
    assert question.path == f"/containers/{ID}/json"
    assert question.headers["host"] == "localhost"


def test_of_its_environment_only_what_was_named_is_taken() -> None:
    assert "docker:env:ENVIRONMENT=prod" in texts(told(http(said()), env=("ENVIRONMENT", "OTHER")))
    assert not any("hunter2" in text for text in texts(told(http(said()), env=("ENVIRONMENT",))))


def test_podman_may_tell_the_images_id_without_its_algorithm() -> None:
    assert f"docker:image_config_digest:sha256:{OTHER}" in texts(told(http(said(Image=OTHER))))


def test_what_no_entry_could_name_is_left_out_and_the_rest_stays() -> None:
    labels = {"a": "b\nc", "": "x", "é": "x", "long": "x" * 1000, "good": "yes", "empty": ""}
    found = texts(told(http(said(Config__Labels=labels, Config__Image="", Image=""))))
    assert found == {"docker:label:good:yes", "docker:label:empty:"}


def test_there_are_only_so_many_labels() -> None:
    labels = {f"l{number:04}": "x" for number in range(2 * MOST_LABELS)}
    found = [text for text in texts(told(http(said(Config__Labels=labels)))) if ":label:" in text]
    assert len(found) == MOST_LABELS


@pytest.mark.parametrize("answer", [http({"message": "No such container"}, 404)])
def test_a_container_that_it_does_not_know_is_none(answer: bytes) -> None:
    assert told(answer) is None


def test_a_container_that_does_not_run_is_none() -> None:
    assert told(http(said(State__Running=False, State__Pid=0))) is None


BAD = {
    "another container": (http(said(Id=OTHER)), "another container"),
    "no JSON": (http(b"<html>"), "no container"),
    "another shape": (http([]), "no container"),
    "a number for a label": (http(said(Config__Labels={"a": 1})), "no container"),
    "nested without end": (http(b'{"Id":' + b"[" * 100_000), "no container"),
    "nothing of its state": (http({"Id": ID, "Config": {}}), "no container"),
    "no HTTP": (b"SSH-2.0-x\r\n\r\n", "no HTTP"),
    "cut": (http(said())[:-5], "within its answer"),
    "too much": (http(b" " * (1024 * 1024 + 1)), "more than"),
    "a head without end": (b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 20_000, "no HTTP"),
    "an error of its own": (http({"message": "x"}, 500), "answers 500"),
    "elsewhere": (http(b"", 302, Location="http://127.0.0.1/"), "answers 302"),
    "no process": (http(said(State__Pid=0)), "tells none"),
    "a process that is gone": (http(said(State__Pid=4711)), "no process 4711"),
    "a process of the machine": (http(said(State__Pid=1)), "process 1 is not in container"),
    "a process of another container": (http(said(State__Pid=2)), "process 2 is not in container"),
    "a PID below nothing": (http(said(State__Pid=-1)), "tells none"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_no_word(name: str) -> None:
    answer, why = BAD[name]
    machine = Machine({16503: CONTAINER, 1: None, 2: Container(OTHER)})
    with pytest.raises(PkiError, match=why):
        told(answer, machine=machine)


def test_one_that_is_silent_is_not_waited_for() -> None:
    with pytest.raises(PkiError, match="did not answer within"):
        told(None, timeout=0.05)


def test_one_that_is_away_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="no socket is there"):
        asked(tmp_path / "none")


@pytest.mark.parametrize("user", [US + 1, 4_000_001_000])
def test_who_is_another_user_is_not_even_asked(user: int) -> None:
    server = LocalServer(lambda _: http(said()))
    with at_a_socket(server) as path, pytest.raises(PkiError, match=f"user {US} listens at"):
        asked(path, user=user, root=user)
    assert not server.asked


@pytest.mark.parametrize(("user", "of"), [(0, None), (1000, 1000)])
def test_its_word_counts_for_containers_of_its_user_only(user: int, of: int | None) -> None:
    runtime = ContainerRuntime(own_reactor(), RuntimeSettings(Path("/x"), user))
    assert runtime.speaks_of(Container(ID, user=of))
    assert not runtime.speaks_of(Container(ID, user=7))
    assert not runtime.speaks_of(Container(ID, user=1000 if of is None else None))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_error_of_ours(data: bytes) -> None:
    for answer in (data, http(data)):
        with pytest.raises(PkiError):
            told(answer)
