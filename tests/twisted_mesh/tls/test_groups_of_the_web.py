"""With --require-pq the web's servers and callers are held to hybrid groups too, by TLS 1.3."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from OpenSSL import SSL
from twisted.internet.task import Clock

from pki.errors import PkiError
from pki.keys import MemoryKey
from tests.authorities import NOW, key
from tests.twisted_mesh.federation.hostile import (
    Shown,
    ok,
    reactor,
    serving,
    web_certificate,
    web_root,
)
from tests.twisted_mesh.grpc.sockets import run
from tests.twisted_mesh.tls.test_groups import tell, without_setter
from tests.twisted_mesh.tls.test_web import certificate, write
from tests.twisted_mesh.tls.test_web_client import shaken
from tests.twisted_mesh.tls.wires import End
from twisted_mesh.http.https_client import HttpsClient, WebUrl
from twisted_mesh.tls.hybrid import HYBRID
from twisted_mesh.tls.web import ShownSvid, WebCertificate
from twisted_mesh.tls.web_client import WebTrust

CLASSICAL = "classical-key-exchange"


def speaking(groups: str) -> Shown:
    """A server of the web that takes these groups alone."""
    return evolve(web_certificate("localhost"), groups=groups)


def strict() -> WebTrust:
    return WebTrust(Clock(), [web_root()[0]], True)


@pytest.mark.parametrize("group", HYBRID)
def test_a_server_with_a_hybrid_group_is_believed(group: str) -> None:
    assert shaken(strict(), speaking(group)) == (True, "")


@pytest.mark.parametrize("lock", ["both", "second"])
def test_one_without_is_refused_by_either_lock(lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lock == "second":
        without_setter(monkeypatch)
    done, code = shaken(strict(), speaking("x25519"))
    assert not done
    assert code == ("" if lock == "both" else CLASSICAL)  # the first is an alert of the server's


def test_tls_1_2_has_no_hybrid_groups() -> None:
    assert shaken(strict(), evolve(speaking(""), newest=SSL.TLS1_2_VERSION)) == (False, "")


@pytest.mark.parametrize("lock", ["both", "second"])
def test_a_question_is_not_asked_there_and_it_is_told_why(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lock == "second":
        without_setter(monkeypatch)
    client = HttpsClient(reactor(), (web_root()[0],), requires_pq=True)
    with serving(ok(b"{}"), speaking("x25519")) as endpoint:
        asking = client.get(WebUrl.parse(endpoint.url(), "jwks_url"), 100)
        with pytest.raises(Exception, match="hybrid group") as refusal:
            run(asking)
        assert refusal.value.problems[0].code == CLASSICAL  # type: ignore[attr-defined]
        assert endpoint.asked == []
    with serving(ok(b"{}"), speaking("")) as endpoint:
        assert run(client.get(WebUrl.parse(endpoint.url(), "jwks_url"), 100)) == b"{}"


# those who call us


def _web(tmp_path: Path) -> WebCertificate:
    found = WebCertificate(tmp_path / "web.pem", tmp_path / "web.key", requires_pq=True)
    write(found, certificate(key(1)), key(1))
    found.load(NOW)
    return found


def _own(_: Path) -> ShownSvid:
    return ShownSvid(End(True, requires_pq=True).contexts)


def _called(context: SSL.Context, change: Any) -> str:
    """The group of a caller's handshake; empty where it is refused."""
    calling = SSL.Context(SSL.TLS_CLIENT_METHOD)
    change(calling)
    ends = SSL.Connection(calling), SSL.Connection(context)
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    try:
        for _ in range(5):
            for end, other in (ends, ends[::-1]):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(65536))
    except SSL.Error:
        return ""
    return ends[1].get_group_name() or ""


@pytest.mark.parametrize("shown", [_web, _own], ids=["oidc", "federation"])
def test_our_web_ports_take_hybrid_groups_alone(shown: Any, tmp_path: Path) -> None:
    context = shown(tmp_path).getContext()
    assert _called(context, lambda _: None) == HYBRID[0]
    assert not _called(context, partial(tell, names="x25519:secp256r1"))
    assert not _called(context, lambda one: one.set_max_proto_version(SSL.TLS1_2_VERSION))


@pytest.mark.parametrize("shown", [_web, _own], ids=["oidc", "federation"])
def test_they_open_only_where_openssl_can_be_told(
    shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who calls shows no certificate, so that there is no second lock."""
    without_setter(monkeypatch)
    with pytest.raises(PkiError, match="does not let itself be told"):
        shown(tmp_path).getContext()


def test_a_certificate_that_is_read_again_keeps_the_rule(tmp_path: Path) -> None:
    web = _web(tmp_path)
    other: MemoryKey = key(2)
    web.certificate.write_bytes(certificate(other))
    web.key.write_bytes(other.to_pem())
    assert web.load(NOW)
    assert not _called(web.getContext(), partial(tell, names="x25519"))
