"""The kubelet's word on a container: which pod, by a certificate, a token, or the kernel's word on who listens."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols.tls import TLSMemoryBIOFactory

from pki.errors import PkiError
from pki.svid.x509svid import certificates_pem
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.local_apis import (
    ID,
    OTHER,
    STATIC_UID,
    UID,
    LocalServer,
    a_list,
    a_pod,
    at_a_port,
    http,
)
from tests.twisted_mesh.attest.processes import only_linux
from tests.twisted_mesh.federation.hostile import Shown, web_certificate, web_root
from tests.twisted_mesh.grpc.sockets import own_reactor, run
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.attest.kubelet import FRESH, Kubelet, KubeletSettings
from twisted_mesh.attest.pod_list import PodList
from twisted_mesh.attest.registry import declare_kinds

pytestmark = only_linux

CONTAINER = Container(ID, UID)
US = os.geteuid()


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


def listed(*pods: dict[str, Any], container: Container = CONTAINER) -> set[str] | None:
    found = PodList.parse(json.dumps(a_list(*pods)).encode()).selectors_of(container)
    return None if found is None else set(map(str, found))


ALL = {
    "k8s:ns:shop",
    "k8s:sa:api",
    "k8s:node-name:node7",
    f"k8s:pod-uid:{UID}",
    "k8s:pod-name:api-5d9f-x7k2p",
    "k8s:pod-label:app:api",
    "k8s:pod-label:empty:",
    "k8s:pod-owner:ReplicaSet:api-5d9f",
    f"k8s:pod-owner-uid:ReplicaSet:{UID}",
    "k8s:pod-image:docker.io/library/api:1.2",
    f"k8s:pod-image:docker.io/library/api@sha256:{OTHER}",
    "k8s:pod-image-count:1",
    "k8s:pod-init-image:docker.io/library/setup:1.2",
    f"k8s:pod-init-image:docker.io/library/setup@sha256:{OTHER}",
    "k8s:pod-init-image-count:1",
    "k8s:container-name:api",
    "k8s:container-image:docker.io/library/api:1.2",
    f"k8s:container-image:docker.io/library/api@sha256:{OTHER}",
}


def test_pod_and_container_are_told_as_spire_spells_them_on_the_hosts_network_too() -> None:
    assert listed(a_pod()) == ALL


def test_where_the_cgroup_does_not_show_the_pod_the_container_alone_finds_it() -> None:
    assert listed(a_pod(), container=Container(ID)) == ALL


def test_another_container_is_in_none_of_the_pods() -> None:
    assert listed(a_pod(), container=Container("0" * 64, UID)) is None
    assert listed() is None


def test_one_that_sets_a_pod_up_is_in_it_while_it_runs() -> None:
    running = {"running": {}}
    pod = a_pod()
    pod["status"]["initContainerStatuses"][0]["state"] = running
    found = listed(pod, container=Container(OTHER, UID))
    assert found is not None
    assert "k8s:container-name:setup" in found


def test_a_container_that_has_ended_or_not_begun_is_none_yet() -> None:
    for state in ({"terminated": {"exitCode": 0}}, {"waiting": {"reason": "x"}}, {}):
        pod = a_pod()
        pod["status"]["containerStatuses"][0]["state"] = state
        assert listed(pod) is None
    assert listed(a_pod(status={})) is None
    assert listed(a_pod(status={"containerStatuses": [{"name": "api", "containerID": ""}]})) is None


def test_who_was_put_beside_them_to_debug_is_not_the_pod() -> None:
    pod = a_pod()
    pod["status"]["ephemeralContainerStatuses"] = pod["status"].pop("containerStatuses")
    assert listed(pod) is None


def test_a_static_pod_is_known_by_the_hash_that_its_cgroup_is_called_by() -> None:
    by_hash = {"kubernetes.io/config.hash": STATIC_UID, "kubernetes.io/config.source": "file"}
    container = Container(ID, STATIC_UID)
    found = listed(a_pod(metadata__annotations=by_hash), container=container)
    assert found == ALL
    found = listed(a_pod(metadata__uid=STATIC_UID), container=container)
    assert found is not None
    assert f"k8s:pod-uid:{STATIC_UID}" in found


def test_a_container_of_two_pods_or_of_another_than_its_cgroup_says_is_of_none() -> None:
    with pytest.raises(PkiError, match="2 pods"):
        listed(a_pod(), a_pod(metadata__uid=STATIC_UID))
    with pytest.raises(PkiError, match="another pod"):
        listed(a_pod(metadata__uid=STATIC_UID))


def test_what_says_null_says_nothing() -> None:
    pod = a_pod(metadata__labels=None, metadata__ownerReferences=None, metadata__annotations=None)
    pod["status"]["initContainerStatuses"] = None
    found = listed(pod)
    assert found is not None
    assert not any("label" in text or "owner" in text for text in found)


def test_only_what_root_has_named_is_looked_for() -> None:
    kubelet = Kubelet(own_reactor(), KubeletSettings("http", "127.0.0.1", 1))
    assert kubelet.speaks_of(CONTAINER)
    assert not kubelet.speaks_of(evolve(CONTAINER, user=1000))
    assert not kubelet.speaks_of(evolve(CONTAINER, is_in_unit=True))


BAD = {
    "no JSON": b"<html>",
    "another shape": b"[]",
    "no items": b'{"":""}',
    "pods that are none": b'{"items": [1]}',
    "a pod without an end": b'{"items": [{"metadata": {"name": "x"}',
    "labels of another kind": b'{"items": [{"metadata": {"labels": {"a": 1}}}]}',
    "nested without end": b'{"items": [{"metadata": ' + b"[" * 100_000,
    "no UTF-8": b'{"items": [{"metadata": {"name": "\xff"}}]}',
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_list_is_no_word(name: str) -> None:
    with pytest.raises(PkiError, match="no list of pods"):
        PodList.parse(BAD[name])


@given(st.binary())
def test_arbitrary_bytes_are_no_list(data: bytes) -> None:
    with pytest.raises(PkiError):
        PodList.parse(data)


# By its read-only port, and by TLS without a certificate: the kernel says who listens.


def told(kubelet: Kubelet) -> set[str] | None:
    found = run(kubelet.tell(CONTAINER))
    return None if found is None else set(map(str, found.selectors))


def plain(port: int, **more: Any) -> Kubelet:
    return Kubelet(own_reactor(), KubeletSettings("http", "127.0.0.1", port), root=US, **more)


def good(_: object) -> bytes:
    return http(a_list(a_pod()))


def test_the_read_only_port_is_believed_where_root_alone_listens() -> None:
    server = LocalServer(good)
    with at_a_port(server.factory()) as port:
        assert told(plain(port)) == ALL
        assert server.asked[0].path == "/pods"
        assert "authorization" not in server.asked[0].headers
        another = evolve(plain(port), root=US + 1)
        with pytest.raises(PkiError, match="not root alone who listens"):
            told(another)
    assert len(server.asked) == 1


def test_a_port_that_listens_on_all_addresses_is_seen_too() -> None:
    with at_a_port(LocalServer(good).factory(), "::") as port:
        assert told(plain(port)) == ALL


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(b"", 401), "answers 401: it wants a token"),
        (http(b"", 403), "answers 403: it wants a token"),
        (http(b"", 302, Location="http://127.0.0.1:1/"), "answers 302"),
        (http(b"x" * 100), "no list of pods"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 99999999999\r\n\r\n", "more than"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "speaks TLS: write https://"),
    ],
)
def test_another_answer_is_no_word(answer: bytes, why: str) -> None:
    with (
        at_a_port(LocalServer(lambda _: answer).factory()) as port,
        pytest.raises(PkiError, match=why),
    ):
        told(plain(port))


def test_one_that_is_away_or_silent_is_told_so() -> None:
    with (
        at_a_port(LocalServer().factory()) as port,
        pytest.raises(PkiError, match="did not answer within"),
    ):
        told(plain(port, timeout=0.05))
    with pytest.raises(PkiError, match="nobody listens"):
        told(plain(port))


def together(kubelet: Kubelet, count: int) -> Sequence[Any]:
    asking = [Deferred.fromCoroutine(kubelet.tell(CONTAINER)) for _ in range(count)]

    async def all_of_them() -> Any:
        return await gatherResults([one.addErrback(lambda why: why.value) for one in asking])

    return run(all_of_them())


def test_who_come_together_have_the_list_fetched_once_and_a_moment_later_it_is_the_same() -> None:
    server = LocalServer(good)
    with at_a_port(server.factory()) as port:
        kubelet = plain(port)
        assert len({found.selectors for found in together(kubelet, 50)}) == 1
        assert len(server.asked) == 1
        told(kubelet)
        assert len(server.asked) == 1
        assert kubelet._last is not None
        kubelet._last = (kubelet._last[0] - FRESH, kubelet._last[1])
        told(kubelet)
    assert len(server.asked) == 2


def test_that_there_was_no_list_is_shared_as_well() -> None:
    server = LocalServer(lambda _: http(b"", 500))
    with at_a_port(server.factory()) as port:
        assert all(isinstance(why, PkiError) for why in together(plain(port), 50))
    assert len(server.asked) == 1


def test_a_long_list_is_read_on_a_thread() -> None:
    names: list[str] = []

    def aside(call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        thread_done: list[Any] = []

        def work() -> None:
            names.append(threading.current_thread().name)
            thread_done.append(call(*args))

        thread = threading.Thread(target=work, name="aside")
        thread.start()
        thread.join()
        done: Deferred[Any] = Deferred()
        done.callback(thread_done[0])
        return done

    pods = [a_pod(metadata__uid=STATIC_UID, status={}) for _ in range(500)]
    with at_a_port(LocalServer(lambda _: http(a_list(*pods, a_pod()))).factory()) as port:
        assert told(plain(port, defer=aside)) == ALL
    assert names == ["aside"]


# By TLS.


@contextmanager
def over_tls(server: LocalServer, shown: Shown) -> Iterator[int]:
    factory = TLSMemoryBIOFactory(shown, False, server.factory(), own_reactor())
    factory.noisy = False
    with at_a_port(factory) as port:
        yield port


def secured(port: int, directory: Path, **changes: Any) -> Kubelet:
    ca, token = directory / "ca.crt", directory / "token"
    if not ca.exists():
        ca.write_bytes(certificates_pem([web_root()[0]]))
        token.write_text("the.tok.en\n")
    said = KubeletSettings("https", "127.0.0.1", port, ca, "node7", token)
    return Kubelet(own_reactor(), evolve(said, **changes), root=US)


def test_by_its_certificate_for_the_nodes_name_it_is_shown_the_token(tmp_path: Path) -> None:
    server = LocalServer(good)
    with over_tls(server, web_certificate("node7")) as port:
        assert told(secured(port, tmp_path)) == ALL
    (question,) = server.asked
    assert question.headers["authorization"] == "Bearer the.tok.en"


@pytest.mark.parametrize(
    ("shown", "changes", "why"),
    [
        (lambda: web_certificate("node8"), {}, "valid for node8, not node7"),
        (lambda: web_certificate("127.0.0.1"), {}, "not node7"),
        (lambda: web_certificate("node7"), {"name": ""}, "not 127.0.0.1"),
        (lambda: web_certificate("node7", issuer="nobody's CA"), {}, "(?i)unknown|issuer"),
        (
            lambda: web_certificate("node7", since=datetime.now(UTC) - timedelta(days=9)),
            {},
            "expired|not valid any more|ended",
        ),
    ],
    ids=["another's name", "an address", "not the address", "another CA", "ended"],
)
def test_another_certificate_is_shown_nothing(
    shown: Callable[[], Shown], changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    server = LocalServer(good)
    with over_tls(server, shown()) as port, pytest.raises(PkiError, match=why):
        told(secured(port, tmp_path, **changes))
    assert not server.asked


def test_one_that_speaks_no_tls_is_shown_nothing(tmp_path: Path) -> None:
    server = LocalServer(good)
    with at_a_port(server.factory()) as port, pytest.raises(PkiError):
        told(evolve(secured(port, tmp_path), timeout=0.2))
    assert not server.asked


def test_its_ca_is_read_again_when_the_file_has_changed(tmp_path: Path) -> None:
    with over_tls(LocalServer(good), web_certificate("node7", issuer="other CA")) as port:
        kubelet = secured(port, tmp_path)
        with pytest.raises(PkiError):
            told(kubelet)
        (tmp_path / "ca.crt").write_bytes(certificates_pem([web_root("other CA")[0]]))
        kubelet._last = None
        assert told(kubelet) == ALL


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("token", b"", "holds no token"),
        ("token", b"two words", "holds no token"),
        ("token", b"a\r\nX-Evil: b", "holds no token"),
        ("token", "ü".encode(), "holds no token"),
        ("token", b"x" * 20_000, "longer than"),
        ("ca.crt", b"nothing", "ca.crt"),
    ],
)
def test_a_file_that_is_no_good_is_told_and_nobody_is_asked(
    name: str, text: bytes, why: str, tmp_path: Path
) -> None:
    server = LocalServer(good)
    with over_tls(server, web_certificate("node7")) as port:
        kubelet = secured(port, tmp_path)
        (tmp_path / name).write_bytes(text)
        with pytest.raises(PkiError, match=why):
            told(kubelet)
        (tmp_path / name).unlink()
        kubelet._last = None
        with pytest.raises(PkiError, match="cannot be read"):
            told(kubelet)
    assert not server.asked


@pytest.mark.parametrize("verified", [True, False])
def test_where_hybrid_groups_are_required_one_without_is_shown_nothing(
    verified: bool, tmp_path: Path
) -> None:
    server, shown = LocalServer(good), web_certificate("node7")
    changes = {} if verified else {"ca_file": None, "skip_verification": True}
    with over_tls(server, shown) as port:
        kubelet = evolve(secured(port, tmp_path, **changes), requires_pq=True)
        assert told(kubelet) == ALL
    classical = evolve(shown, groups="x25519")
    server = LocalServer(good)
    with over_tls(server, classical) as port, pytest.raises(PkiError):
        told(evolve(secured(port, tmp_path, **changes), requires_pq=True))
    assert not server.asked


def test_without_verification_it_is_the_kernel_that_says_it_is_roots(tmp_path: Path) -> None:
    server = LocalServer(good)
    with over_tls(server, web_certificate("anything", issuer="nobody's CA")) as port:
        kubelet = secured(port, tmp_path, ca_file=None, skip_verification=True)
        assert told(kubelet) == ALL
        with pytest.raises(PkiError, match="not root alone who listens"):
            told(evolve(kubelet, root=US + 1))
    assert len(server.asked) == 1
