"""TLS to servers of the web: whom the machine believes is believed, as it is now; a bug shuts the door."""

from contextlib import suppress
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock

from pki.svid.x509svid import certificates_pem
from tests.twisted_mesh.federation.hostile import Shown, web_certificate, web_root
from twisted_mesh.tls import web_client
from twisted_mesh.tls.web_client import WebTrust, WebVisit


def shaken(trust: WebTrust, shown: Shown, host: str = "localhost") -> tuple[bool, str]:
    """Whether a handshake in memory is done, and why the server was refused."""
    visit = WebVisit(trust, host, host)
    client = visit.clientConnectionForTLS(None)  # type: ignore[arg-type]
    server = SSL.Connection(shown.getContext(), None)
    client.set_connect_state()
    server.set_accept_state()
    done = set()
    for _ in range(10):
        for end, other in ((client, server), (server, client)):
            try:
                end.do_handshake()
                done.add(end)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                return False, visit.problem.code if visit.problem else ""
            with suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    return client in done, visit.problem.code if visit.problem else ""


def test_whom_this_machine_believes_is_believed_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    roots.write_bytes(certificates_pem([web_root()[0]]))
    clock = Clock()
    trust = WebTrust(clock)
    assert shaken(trust, web_certificate("localhost")) == (True, "")
    assert shaken(trust, web_certificate("localhost", issuer="other CA"))[0] is False
    roots.write_bytes(certificates_pem([web_root("other CA")[0]]))
    clock.advance(3599)
    assert shaken(trust, web_certificate("localhost"))[0] is True
    clock.advance(1)
    assert shaken(trust, web_certificate("localhost")) == (False, "unknown-authority")
    assert shaken(trust, web_certificate("localhost", issuer="other CA")) == (True, "")


def test_the_name_of_each_connection_is_its_own() -> None:
    trust = WebTrust(Clock(), [web_root()[0]])
    shown = web_certificate("localhost", "127.0.0.1")
    assert shaken(trust, shown, "localhost") == (True, "")
    assert shaken(trust, shown, "other.example") == (False, "name-mismatch")


def test_a_bug_shuts_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(web_client, "hostname_problem", broken)
    trust = WebTrust(Clock(), [web_root()[0]])
    assert shaken(trust, web_certificate("localhost"))[0] is False
