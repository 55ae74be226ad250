"""Only ``/mesh/ca`` under the pinned root is the CA: whoever else answers is told nothing."""

from pathlib import Path

import pytest

from pki.issuing.authority import Authority
from tests.interop import forging
from tests.interop.forging import forged, server_names
from tests.interop.house import House, Identity, hears
from tests.interop.test_client_refuses import assert_refused
from tests.interop.wires import impostor, listening, plain, silence

CA_ID = "spiffe://mesh.local/mesh/ca"


def _answer(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@pytest.fixture
def workload(shared: House) -> Identity:
    """A server of the same mesh with a certificate that the CA gave it itself, for localhost."""
    directory = shared.home / "of-impostor"
    if not directory.exists():
        from pki.issuing.csr import build_csr
        from pki.keys import KeyAlgorithm, MemoryKey
        from pki.spiffe import SpiffeId
        from pki.svid.x509svid import load_certificates

        spiffe_id = SpiffeId.parse("spiffe://mesh.local/service/impostor")
        its_key = MemoryKey.generate(KeyAlgorithm.EC_P256)
        csr = build_csr(its_key, spiffe_id, ["localhost"]).decode()
        reply = shared.post("socket", "/api/v1/sign", {"csr": csr, "requested_id": str(spiffe_id)})
        chain = reply.json["certificate"] + "".join(reply.json["chain"])
        return forging.write(directory, load_certificates(chain.encode()), its_key)
    return Identity(directory)


def test_a_workload_that_poses_as_the_ca_is_told_nothing(shared: House, workload: Identity) -> None:
    with listening(impostor(workload)) as fake:
        done = shared.client("--ca-url", fake.url, "--ca-file", str(shared.root), "--timeout", "2s")
    assert_refused(
        done,
        f"not-authorized: spiffe://mesh.local/service/impostor is not among those that may: {CA_ID}",
    )
    assert fake.callers >= 1
    assert fake.heard == b"", "no CSR, no request line, nothing"
    assert all("BAD_CERTIFICATE" in complaint for complaint in fake.complaints)


def test_a_server_is_not_fooled_either_and_goes_on_asking(
    shared: House, workload: Identity
) -> None:
    with listening(impostor(workload)) as fake:
        options = ("--ca-url", fake.url, "--ca-file", str(shared.root), "--listen", "127.0.0.1:0")
        server = shared.twistd("mesh-server", *options)
        server.wait_for(
            r"No certificate from the CA at https://localhost:\d+: not-authorized: .*trying again in"
        )
        # It is told once, and asked for again after growing pauses.
        fake.wait_for(callers=3)
        assert fake.heard == b""
        assert server.stop() == 0, "SIGTERM while it waits for the CA"
    assert "Ready" not in server.text


def test_a_ca_of_another_mesh_is_refused(shared: House, tmp_path: Path) -> None:
    foreign = forged(tmp_path / "foreign", forging.another_mesh(), replace=server_names(CA_ID))
    with listening(impostor(foreign)) as fake:
        done = shared.client("--ca-url", fake.url, "--ca-file", str(shared.root), "--timeout", "2s")
    assert_refused(done, "unknown-authority")
    assert fake.heard == b""


def test_the_true_ca_believed_by_another_root_is_refused(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    from pki.svid.x509svid import certificates_pem
    from tests.authorities import key, mesh

    other = mesh(forging.MESH, key("a third root"), key("a third CA"), forging.present())
    wrong = tmp_path / "wrong.crt"
    wrong.write_bytes(certificates_pem([other.root.certificate]))
    with hears(
        shared.ca, r"Connection from .* refused: unknown-authority: the other side refused us"
    ):
        ca = f"https://localhost:{shared.ca_port}"
        done = shared.client("--ca-url", ca, "--ca-file", str(wrong), "--timeout", "2s")
    assert_refused(done, "unknown-authority")


def test_over_tls_the_true_ca_gives_nothing_to_who_has_no_proof(shared: House) -> None:
    ca = f"https://localhost:{shared.ca_port}"
    done = shared.client("--ca-url", ca, "--ca-file", str(shared.root))
    assert_refused(done, "sign needs proof of who you are")


def test_a_ca_that_never_answers_is_status_3(shared: House) -> None:
    with listening(silence) as hole:
        done = shared.client("--ca-url", hole.url, "--ca-file", str(shared.root), "--timeout", "1s")
    assert_refused(done, "did not answer within 1 s", status=3)


NO_CA: dict[str, tuple[bytes, str, int]] = {
    "an array": (_answer("200 OK", b"[]"), "is no CA of the mesh", 1),
    "a text": (_answer("200 OK", b"hello"), "is no CA of the mesh", 1),
    "no certificate": (
        _answer("201 Created", b'{"certificate": "x", "chain": []}'),
        "the CA's answer holds no certificates in PEM",
        1,
    ),
    "a bare refusal": (_answer("403 Forbidden", b"nope"), "the CA answered 403", 1),
    "a bare failure": (_answer("502 Bad Gateway", b"oops"), "the CA answered 502", 3),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP", 3),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "is not HTTP", 3),
    "headers without end": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40000, "is not HTTP", 3),
    "a length of gigabytes": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nx",
        "answers with more than",
        1,
    ),
}


@pytest.mark.parametrize("what", NO_CA)
def test_a_plaintext_port_that_is_no_ca_ends_in_words(what: str, shared: House) -> None:
    answer, words, status = NO_CA[what]
    with listening(plain(answer)) as fake:
        url = f"http://localhost:{fake.port}"
        done = shared.client("--ca-url", url, "--timeout", "2s")
    assert_refused(done, words, status)
    assert "Failure" not in done.stderr
    if "not HTTP" in words:
        assert f"what answers at {url}" in done.stderr


@pytest.mark.parametrize("length", [b"-1", b"+5", b"0x10", b"5\r\nContent-Length: 6", b"9" * 40])
def test_a_length_that_is_none_is_told_to_administrators_in_words(
    length: bytes, shared: House
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nhello"
    with listening(plain(answer)) as fake:
        url = f"http://localhost:{fake.port}"
        done = shared.ctl("cert", "list", "--ca-url", url)
    assert done.returncode == (1 if length[0:1] == b"9" else 3), done.stderr
    (line,) = done.stderr.splitlines()
    assert url in line
    assert "Failure" not in line
