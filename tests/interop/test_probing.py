"""``pki-inspect probe`` and ``lint`` at a running mesh, and at servers of others: what is seen, and how it ends."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pki.serial import serial_hex
from pki.svid.x509svid import load_certificates
from tests.interop.house import House
from tests.running import BIN, free_port, until
from tests.tools import require_tool
from twisted_mesh.tls.conversation import Conversation, Failed, Target

pytestmark = pytest.mark.interop(
    "tests/twisted_mesh/cli/test_inspect_probe.py::test_an_endpoint_of_our_mesh_lets_us_in"
)


def seen(house: House, port: int, *options: str | Path, status: int) -> dict[str, Any]:
    target = f"localhost:{port}"
    done = house.run(BIN / "pki-inspect", "probe", target, *options, "--format", "json")
    assert done.returncode == status, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def codes(said: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in said["problems"]]


def test_mesh_server_lets_us_in_and_is_stapled(shared: House) -> None:
    me = shared.identity("payment-worker").directory
    wanted = ("--spiffe-id", "spiffe://mesh.local/service/api-server", "--hostname", "localhost")
    said = seen(shared, shared.port, "--svid", me, *wanted, status=0)
    assert (said["verdict"], said["purpose"], said["protocol"]) == ("valid", "svid", "TLSv1.3")
    assert said["client_certificate"]["answer"] == "accepted"
    assert said["alpn"] == "http/1.1"
    assert said["staple"]["status"] == "good"
    assert [cert["what"] for cert in said["chain"]] == ["X.509-SVID", "issuing CA"]
    assert said["remarks"] == []


def test_mesh_server_says_why_it_refuses(shared: House) -> None:
    said = seen(shared, shared.port, "--roots", shared.root, status=1)
    assert codes(said) == ["no-certificate"]
    gone = shared.identity("probed-and-revoked")
    serial = load_certificates(gone.cert.read_bytes())[0].serial_number
    done = shared.ctl("cert", "revoke", "--serial", serial_hex(serial), "--yes")
    assert done.returncode == 0, done.stderr
    words = ("probe", f"localhost:{shared.port}", "--svid", gone.directory)
    until(lambda: "revoked: " in shared.run(BIN / "pki-inspect", *words).stdout)
    refused = seen(shared, shared.port, "--svid", gone.directory, status=1)
    assert codes(refused) == ["revoked"]
    assert refused["verdict"] == "valid"
    assert refused["client_certificate"]["answer"] == "refused"


def test_the_ca_sends_its_root_and_asks_for_a_certificate_that_it_does_not_demand(
    shared: House,
) -> None:
    said = seen(shared, shared.ca_port, "--roots", shared.root, status=0)
    assert said["client_certificate"]["asked_for"] is True
    assert said["client_certificate"]["answer"] == "accepted"
    assert [cert["what"] for cert in said["chain"]] == ["X.509-SVID", "issuing CA", "root CA"]
    assert said["remarks"] == ["certificate 3 is a root, which need not be sent"]


def test_a_mesh_speaks_no_older_version(shared: House) -> None:
    for version in ("1.0", "1.1", "1.2"):
        said = seen(shared, shared.port, "--roots", shared.root, "--tls", version, status=1)
        assert codes(said) == ["protocol-version"]


def test_what_a_running_ca_has_issued_has_no_findings(shared: House) -> None:
    me = shared.identity("payment-worker")
    issuing = shared.state / "ca" / "issuing.crt"
    done = shared.run(BIN / "pki-inspect", "lint", me.cert, issuing, shared.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not applied" not in done.stdout


@contextmanager
def s_server(house: House, *options: str | Path) -> Iterator[int]:
    """``openssl s_server`` with an identity of the mesh, and its port."""
    me = house.identity("payment-worker")
    port = free_port()
    command = [require_tool("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-quiet"]
    words = [*command, *me.for_openssl, *options]
    with subprocess.Popen(
        list(map(str, words)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until(lambda: answers(port))
            yield port
        finally:
            process.kill()


def answers(port: int) -> bool:
    talk = Conversation(Target("127.0.0.1", port), 1.0)
    try:
        talk.connect()
    except Failed:
        return False
    finally:
        talk.close()
    return True


def test_s_server_names_its_cas_and_takes_us(shared: House) -> None:
    me = shared.identity("payment-worker").directory
    chain = me / "svid_bundle.pem"
    for version, told in (("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")):
        with s_server(shared, "-Verify", "3", "-CAfile", chain, version) as port:
            said = seen(shared, port, "--svid", me, status=0)
            assert (said["protocol"], said["verdict"]) == (told, "valid")
            (named,) = said["client_certificate"]["cas"]
            assert named.startswith("CN=mtls-mesh-root-ca")
            refused = seen(shared, port, "--roots", chain, status=1)
            assert refused["client_certificate"]["answer"] == "refused"


def test_s_server_that_asks_nobody(shared: House) -> None:
    me = shared.identity("payment-worker").directory
    with s_server(shared, "-alpn", "h2") as port:
        said = seen(shared, port, "--svid", me, status=0)
        assert said["alpn"] == "h2"
        assert said["client_certificate"]["answer"] == "not-asked"
