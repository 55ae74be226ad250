"""What a server says to clients whose certificates are not good, and what they hear."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pki.issuing.authority import Authority
from tests.interop import forging
from tests.interop.house import Done, House, hears
from tests.running import Running
from tests.tools import require_tool

REQUEST = "GET /api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
REFUSED = r"WARNING: Connection from 127\.0\.0\.1:\d+ refused: "


@pytest.mark.parametrize("defect", forging.FORGERIES)
def test_a_bad_certificate_is_refused_with_its_reason_in_the_log_and_the_right_alert(
    defect: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    forge, alert, words = forging.FORGERIES[defect]
    identity = forge(tmp_path / "forged", issuing)
    with hears(shared.server, REFUSED + words):
        done = shared.curl(shared.status_url(), *identity.for_curl)
    assert done.returncode in (35, 56), done.stderr
    assert f"alert {alert}" in done.stderr
    assert done.stdout == ""
    shared.assert_it_serves()


@pytest.mark.parametrize("defect", forging.FORGERIES)
def test_the_ca_refuses_the_same_certificates_though_it_demands_none(
    defect: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    forge, alert, words = forging.FORGERIES[defect]
    identity = forge(tmp_path / "forged", issuing)
    with hears(shared.ca, REFUSED + words):
        done = shared.curl(f"https://localhost:{shared.ca_port}/livez", *identity.for_curl)
    assert done.returncode in (35, 56), done.stderr
    assert f"alert {alert}" in done.stderr
    assert done.stdout == ""
    assert shared.ask("tls", "/livez").status == 200


@pytest.mark.parametrize("defect", ["expired", "another-ca", "two-uri-names"])
def test_openssl_hears_the_same_alerts(
    defect: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    forge, alert, words = forging.FORGERIES[defect]
    identity = forge(tmp_path / "forged", issuing)
    with hears(shared.server, REFUSED + words):
        done = shared.s_client(shared.port, *identity.for_openssl, stdin=REQUEST)
    assert done.returncode != 0
    assert f"alert {alert}" in done.stderr
    assert "healthy" not in done.stdout


def test_gnutls_with_a_foreign_certificate_is_refused(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    gnutls = require_tool("gnutls-cli")
    identity = forging.forged(tmp_path / "forged", forging.another_mesh())
    given = (f"--x509cafile={shared.root}", f"--x509certfile={identity.cert}")
    with hears(shared.server, REFUSED + "unknown-authority"):
        done = shared.run(
            gnutls,
            *given,
            f"--x509keyfile={identity.key}",
            "-p",
            str(shared.port),
            "localhost",
            stdin=REQUEST,
        )
    assert "Received alert [48]: CA is unknown" in done.stdout + done.stderr
    assert "healthy" not in done.stdout
    shared.assert_it_serves()


def test_a_forged_chain_of_the_right_make_is_let_in(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    identity = forging.forged(tmp_path / "forged", issuing)
    done = shared.curl(shared.status_url(), *identity.for_curl)
    assert (done.returncode, done.stderr) == (0, ""), "or every refusal above proves nothing"


def test_openssl_and_curl_and_gnutls_are_served_with_a_good_identity(shared: House) -> None:
    good = shared.identity("payment-worker")
    shared.assert_it_serves()
    done = shared.s_client(shared.port, *good.for_openssl, stdin=REQUEST)
    assert '"caller":"spiffe://mesh.local/service/payment-worker"' in done.stdout, done.stderr


CALLS: dict[str, Callable[[House], Done]] = {
    "curl": lambda shared: shared.curl(shared.status_url()),
    "openssl": lambda shared: shared.s_client(shared.port, stdin=REQUEST),
}


@pytest.mark.parametrize("tool", CALLS)
def test_no_client_certificate_is_refused(tool: str, shared: House) -> None:
    with hears(
        shared.server,
        REFUSED + r"no-certificate: the peer presented no certificate \(present an SVID",
    ):
        done = CALLS[tool](shared)
    assert done.returncode != 0
    assert "alert certificate required" in done.stderr
    shared.assert_it_serves()


def test_openssl_without_cert_chain_presents_an_incomplete_chain(shared: House) -> None:
    good = shared.identity("payment-worker")
    with hears(shared.server, REFUSED + "incomplete-chain: .*openssl s_client with -cert_chain"):
        done = shared.s_client(shared.port, "-cert", good.cert, "-key", good.key, stdin=REQUEST)
    assert "alert unknown ca" in done.stderr


def test_who_is_not_allowed_is_told_apart_from_who_is_not_known(
    shared: House, choosy: tuple[Running, int]
) -> None:
    server, port = choosy
    stranger = shared.identity("billing")
    words = (
        r"not-authorized: spiffe://mesh\.local/service/billing is not among those that may: "
        r"spiffe://mesh\.local/service/payment-worker"
    )
    with hears(server, REFUSED + words):
        done = shared.curl(shared.status_url(port), *stranger.for_curl)
    assert done.returncode == 0, done.stderr
    assert "spiffe://mesh.local/service/billing has proven who it is" in done.stdout
    assert "payment-worker" not in done.stdout, "who may is none of its business"
    shared.assert_it_serves(port)
    with hears(server, REFUSED + words):
        refused = shared.client(
            "--server",
            f"https://localhost:{port}",
            "--spiffe-id",
            "spiffe://mesh.local/service/billing",
        )
    assert refused.returncode == 1
    assert f"mesh-client: https://localhost:{port} refused us: spiffe://" in refused.stderr
    assert "add --allow spiffe://mesh.local/service/billing where the server" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "Connection established" not in refused.stdout


@pytest.mark.parametrize("size", [0, 40_000, 3_000_000])
def test_an_upload_of_who_is_not_allowed_hears_why(
    size: int, shared: House, choosy: tuple[Running, int], tmp_path: Path
) -> None:
    _, port = choosy
    sent = tmp_path / "upload"
    sent.write_bytes(b"x" * size)
    stranger = shared.identity("billing")
    done = shared.curl(
        shared.status_url(port), *stranger.for_curl, "-T", sent, "-w", "%{http_code}"
    )
    assert done.stdout.endswith("403"), done
    assert "is not among those that may connect" in done.stdout
