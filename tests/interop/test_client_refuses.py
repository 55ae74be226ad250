"""What mesh-client says to servers that are not who they should be, and what those get to see: nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.issuing.authority import Authority
from tests.interop import forging
from tests.interop.forging import API_SERVER, HOUR, forged, present, server_names, usage
from tests.interop.house import Done, House, Identity, hears
from tests.interop.wires import impostor, listening, middle, plain, silence
from tests.running import Running, free_port

Forgery = Callable[[Path, Authority], Identity]


def _another_ca(directory: Path, ours: Authority) -> Identity:
    return forged(directory, forging.another_mesh(), replace=server_names(API_SERVER))


def _expired(directory: Path, ours: Authority) -> Identity:
    dates = {"start": present() - 2 * HOUR, "end": present() - HOUR}
    return forged(directory, ours, replace=server_names(API_SERVER), **dates)


def _early(directory: Path, ours: Authority) -> Identity:
    dates = {"start": present() + HOUR, "end": present() + 2 * HOUR}
    return forged(directory, ours, replace=server_names(API_SERVER), **dates)


def _web_certificate(directory: Path, ours: Authority) -> Identity:
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return forged(directory, ours, replace={x509.SubjectAlternativeName: (names, False)})


def _client_only(directory: Path, ours: Authority) -> Identity:
    replaced = server_names(API_SERVER) | usage(ExtendedKeyUsageOID.CLIENT_AUTH)
    return forged(directory, ours, replace=replaced)


def _another_host(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, replace=server_names(API_SERVER, "other.test"))


def _another_service(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, replace=server_names("spiffe://mesh.local/service/billing"))


def _leaf_alone(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, replace=server_names(API_SERVER), alone=True)


#: Whom the client meets, what it says, and what the other side is told by an alert.
SERVERS: dict[str, tuple[Forgery, str, str]] = {
    "of another CA": (
        _another_ca,
        "unknown-authority: the certificate is signed by an unknown",
        "unknown ca",
    ),
    "expired": (_expired, "expired: the certificate expired at", "certificate expired"),
    "not yet valid": (_early, "compare the two machines' clocks", "bad certificate"),
    "no SVID": (
        _web_certificate,
        "not-an-svid: an SVID has exactly one URI name, this one 0",
        "bad certificate",
    ),
    "not for servers": (
        _client_only,
        "wrong-usage: extended key usage does not allow serverAuth",
        "unsupported certificate",
    ),
    "of another host": (
        _another_host,
        "name-mismatch: certificate is valid for other.test, not localhost",
        "bad certificate",
    ),
    "another service": (
        _another_service,
        "not-authorized: spiffe://mesh.local/service/billing is not among those that may: "
        + API_SERVER,
        "bad certificate",
    ),
    "without its issuer": (
        _leaf_alone,
        "incomplete-chain: the peer did not present its issuer",
        "unknown ca",
    ),
}


def assert_refused(done: Done, words: str, status: int = 1) -> None:
    """One sentence on stderr with these words, nothing sent, nothing claimed."""
    assert done.returncode == status, (done.stdout, done.stderr)
    assert words in done.stderr
    assert done.stderr.startswith("mesh-client: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for claim in ("Connection established", "Sending request", "successful"):
        assert claim not in done.stdout


@pytest.mark.parametrize("server", SERVERS)
def test_a_wrong_server_is_refused_before_anything_is_sent(
    server: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    forge, words, alert = SERVERS[server]
    with listening(impostor(forge(tmp_path / "impostor", issuing))) as wrong:
        done = shared.client("--server", wrong.url)
    assert_refused(done, words)
    assert wrong.callers == 1
    assert wrong.heard == b""
    # Python says "SSLV3_ALERT_BAD_CERTIFICATE": the alert that the impostor was sent.
    assert alert.replace(" ", "_").upper() in "".join(wrong.complaints), wrong.complaints
    assert shared.client().returncode == 0


def test_a_forged_server_of_the_right_make_is_believed(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    good = forged(tmp_path / "good", issuing, replace=server_names(API_SERVER))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    with listening(impostor(good, answer)) as double:
        done = shared.client("--server", double.url)
    assert done.returncode == 0, "or every refusal above proves nothing: " + done.stderr
    assert bytes(double.heard).startswith(b"GET /api/status HTTP/1.1\r\n")


def test_a_mesh_server_granted_another_host_name_is_told_apart(shared: House) -> None:
    with shared.serving("--dns", "other.test") as (server, port):
        with hears(server, r"Connection from .* refused: "):
            done = shared.client("--server", f"https://localhost:{port}")
        assert_refused(done, "name-mismatch: certificate is valid for other.test, not localhost")
        given = (
            *shared.identity("payment-worker").for_curl,
            "--resolve",
            f"other.test:{port}:127.0.0.1",
        )
        good = shared.curl(f"https://other.test:{port}/api/status", *given)
        assert good.returncode == 0, good.stderr


def test_the_server_that_was_asked_for_must_be_the_one_that_answers(
    shared: House,
) -> None:
    with hears(shared.server, r"Connection from .* refused: "):
        done = shared.client("--server-id", "spiffe://mesh.local/service/ledger")
    assert_refused(done, f"not-authorized: {API_SERVER} is not among those that may")
    assert shared.client("--server-id", "spiffe://mesh.local/service/*").returncode == 0


def test_a_man_in_the_middle_is_refused_by_both_sides(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    his = forged(tmp_path / "his", forging.another_mesh(), replace=server_names(API_SERVER))
    with (
        listening(middle(shared.port, his, shared.root)) as man,
        hears(shared.server, r"Connection from .* refused: unknown-authority"),
    ):
        done = shared.client("--server", man.url)
    assert_refused(done, "unknown-authority")
    assert man.heard == b"", "he read neither the request nor an answer"
    assert [c.partition(":")[0] for c in man.complaints] == ["server", "client"]
    assert all("UNKNOWN_CA" in complaint for complaint in man.complaints)
    shared.assert_it_serves()


def test_nobody_listening_is_status_3(shared: House) -> None:
    done = shared.client("--server", f"https://localhost:{free_port()}")
    assert_refused(done, "nobody listens there", status=3)


def test_an_unknown_host_is_status_3(shared: House) -> None:
    done = shared.client("--server", "https://nowhere.invalid:9443", "--timeout", "5s")
    assert_refused(done, "the name nowhere.invalid cannot be looked up", status=3)


def test_a_black_hole_is_status_3_in_the_time_that_was_given(shared: House) -> None:
    with listening(silence) as hole:
        done = shared.client("--server", hole.url, "--timeout", "1s")
    assert_refused(done, "did not answer within 1 s", status=3)
    assert hole.callers == 1


def test_a_server_that_shakes_hands_and_never_answers_is_status_3(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    good = forged(tmp_path / "good", issuing, replace=server_names(API_SERVER))
    with listening(impostor(good)) as server:
        done = shared.client("--server", server.url, "--timeout", "2s")
    assert done.returncode == 3, done.stderr
    assert "Connection established" not in done.stdout, (
        "it says so only after it has read something"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH, and no TLS"),
        (b"\x16\x03\x03", "took the connection and closed it"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks plain HTTP, and no TLS"),
    ],
)
def test_what_does_not_speak_tls_is_status_3(answer: bytes, words: str, shared: House) -> None:
    with listening(plain(answer)) as server:
        done = shared.client("--server", server.url, "--timeout", "5s")
    assert_refused(done, words, status=3)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", " is not HTTP (check the address)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhal", " is not HTTP"),
        (b"HTTP/1.1 0 OK\r\nContent-Length: 0\r\n\r\n", " is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nhal", " is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40000, " is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal", " took the connection and closed it"),
        (b"\x00" * 100, " took the connection and closed it"),
        (b"", " took the connection and closed it"),
    ],
)
def test_what_does_not_speak_http_inside_tls_is_an_error_in_words(
    answer: bytes, words: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    good = forged(tmp_path / "good", issuing, replace=server_names(API_SERVER))
    with listening(impostor(good, answer)) as server:
        done = shared.client("--server", server.url, "--timeout", "3s")
    assert_refused(done, words, status=3)


@pytest.mark.parametrize("path", ["/nowhere", "/api", "/api/status/"])
def test_an_answer_that_says_no_is_status_1(path: str, shared: House) -> None:
    done = shared.client(path)
    assert done.returncode == 1
    assert "404 Not Found" in done.stdout


def test_the_restricted_server_serves_the_client_it_names(
    shared: House, choosy: tuple[Running, int]
) -> None:
    _, port = choosy
    assert shared.client("--server", f"https://localhost:{port}").returncode == 0
