"""``pki-inspect probe``: what is seen of real servers, what is thought of it, and how it ends."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from pki.errors import Malformed
from pki.issuing.profile import WORKLOAD
from pki.ocsp.sign import Responder, SingleResponse, Standing
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339, spoken_duration
from tests.authorities import key
from tests.looked_at import (
    asking,
    endpoint,
    plain_server,
    served,
    until_goodbye,
    written,
)
from tests.pki.inspect.damaging import damaged
from tests.running import free_port
from twisted_mesh.cli.inspect import cli
from twisted_mesh.cli.inspect_probe_output import probe_json, probe_text
from twisted_mesh.cli.inspect_probe_verdict import Trusted, judge_probed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.testing import MemoryCa, forge
from twisted_mesh.tls.conversation import Failed, Target
from twisted_mesh.tls.probe import Probed, Wishes, probe

HOUR = timedelta(hours=1)
_TIMES = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\b(\d+ days( \d+h)?|\d+h \d+m|\d+m \d+s|\d+s)\b", re.ASCII
)


@pytest.fixture(scope="module")
def ca() -> MemoryCa:
    return MemoryCa()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: MemoryCa) -> Path:
    """The working directory: the mesh's root, and the identity of one who is let in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    (tmp_path / "root.crt").write_bytes(ca.bundle.to_pem())
    written(ca.member("worker"), tmp_path / "me")
    return tmp_path


def run(*arguments: str, status: int) -> Result:
    result = CliRunner().invoke(cli, ["probe", *arguments], standalone_mode=False)
    if isinstance(result.exception, Unusable):
        result.exit_code = result.exception.exit_code
        result.stderr_bytes = result.exception.message.encode()
    elif result.exception:
        raise result.exception
    else:
        result.exit_code = result.return_value
    assert result.exit_code == status, result.output
    return result


def undated(text: str) -> str:
    """Without points and lengths of time: of two looks, the second may be at a later second."""
    return _TIMES.sub("TIME", text)


def test_a_second_later_the_same_is_said_in_whatever_words() -> None:
    ends = datetime(2026, 11, 23, 10, tzinfo=UTC)
    for words in (
        "valid from {end}, in {left}; here it is {now}",
        "valid until {end}, and here it is {now}",
        "{left} left",
        "expired at {end}, {left} ago",
    ):
        for left in (HOUR, HOUR / 60, timedelta(seconds=59), timedelta(days=3), timedelta(days=1)):
            first, second = (
                undated(
                    words.format(
                        end=rfc3339(ends), left=spoken_duration(span), now=rfc3339(ends - span)
                    )
                )
                for span in (left, left - timedelta(seconds=1))
            )
            assert first == second != words
    assert undated("TLS 1.3, 256 bits, 2 problems") == "TLS 1.3, 256 bits, 2 problems"


def seen(port: int, *arguments: str, status: int) -> dict[str, Any]:
    """What programs are told; people are told the same, with the same status."""
    words = (f"localhost:{port}", *arguments)
    said: dict[str, Any] = json.loads(run(*words, "--format", "json", status=status).stdout)
    text = undated(unstyle(run(*words, status=status).stdout))
    assert f"verdict: {said['verdict']}" in text
    for problem in said["problems"]:
        assert set(problem) == {"code", "subject", "rule", "detail", "remedy"}
        assert f"{problem['code']}: {undated(problem['detail'])}" in text
        assert undated(problem["remedy"]) in text
    for fact in ("protocol", "cipher", "group"):
        assert said[fact] is None or said[fact] in text
    assert all(undated(remark) in text for remark in said["remarks"])
    return said


def codes(said: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in said["problems"]]


def private(svid_key: Any) -> ec.EllipticCurvePrivateKey:
    found = svid_key.private_key
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


def web_chain(ca: MemoryCa, name: str = "localhost", **overrides: Any) -> list[x509.Certificate]:
    """A server's that is no workload, for ``key(9)``."""
    now = datetime.now(UTC)
    overrides.setdefault("start", now - HOUR)
    overrides.setdefault("end", now + HOUR)
    leaf = forge(
        ca.issuing,
        WORKLOAD,
        subject_key=key(9),
        trust_domain=ca.trust_domain,
        subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        replace={
            x509.SubjectAlternativeName: (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
            x509.ExtendedKeyUsage: (
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
                False,
            ),
        },
        **overrides,
    )
    return [leaf, ca.issuing.certificate]


def web_server(ca: MemoryCa, **options: Any) -> Callable[[socket.socket], None]:
    return plain_server(web_chain(ca), private(key(9)), **options)


def svid_server(ca: MemoryCa, **options: Any) -> Callable[[socket.socket], None]:
    svid = ca.issue("shop")
    return plain_server(svid.chain, private(svid.key), **options)


# Endpoints of the mesh


def test_an_endpoint_of_our_mesh_lets_us_in(ca: MemoryCa) -> None:
    with served(endpoint(ca.member("shop"))) as port:
        said = seen(port, "--svid", "me", status=0)
        assert (said["verdict"], said["purpose"], said["protocol"]) == ("valid", "svid", "TLSv1.3")
        assert said["problems"] == []
        assert said["alpn"] == "http/1.1"
        assert said["client_certificate"] == {
            "asked_for": True,
            "cas": [],
            "shown": str(ca.id("worker")),
            "answer": "accepted",
        }
        assert [cert["what"] for cert in said["chain"]] == ["X.509-SVID", "issuing CA"]
        assert (
            said["roots"] == [str(Path("me/current").resolve() / "svid_bundle.pem")]
            or said["roots"]
        )
        assert said["staple"]["status"] == "none"
        assert said["servername"] == "localhost"


def test_who_shows_no_certificate_is_told_that_one_is_demanded(ca: MemoryCa) -> None:
    with served(endpoint(ca.member("shop"))) as port:
        said = seen(port, "--roots", "root.crt", status=1)
        assert said["verdict"] == "valid"
        assert codes(said) == ["no-certificate"]
        assert said["client_certificate"]["answer"] == "refused"
        assert "--svid" in said["problems"][0]["remedy"]
        assert said["problems"][0]["rule"] == "TLS alert: certificate required"


def test_a_stranger_is_told_why_it_is_refused(here: Path, ca: MemoryCa) -> None:
    written(MemoryCa().member("worker"), here / "stranger")
    with served(endpoint(ca.member("shop"))) as port:
        said = seen(port, "--svid", "stranger", "--roots", "root.crt", status=1)
        assert codes(said) == ["unknown-authority"]
        theirs = seen(port, "--svid", "stranger", status=1)
        assert codes(theirs) == ["unknown-authority", "unknown-authority"]


def test_who_is_revoked_and_who_is_not_allowed_are_told(here: Path) -> None:
    ca = MemoryCa()
    revoked = ca.member("gone")
    written(revoked, here / "gone")
    server = ca.member("shop", allow=["worker"])
    ca.revoke(revoked.svid)
    written(ca.member("other"), here / "other")
    with served(endpoint(server)) as port:
        assert codes(seen(port, "--svid", "gone", status=1)) == ["revoked"]
        assert codes(seen(port, "--svid", "other", status=1)) == ["bad-certificate"]


def test_the_names_that_are_demanded_must_all_be_there(ca: MemoryCa) -> None:
    with served(endpoint(ca.member("shop"))) as port:
        good = ("--svid", "me", "--spiffe-id", "spiffe://mesh.test/service/*")
        seen(port, *good, "--hostname", "localhost", "--hostname", "127.0.0.1", status=0)
        bad = ("--spiffe-id", "spiffe://mesh.test/x", "--hostname", "elsewhere.example")
        assert codes(seen(port, *good, *bad, status=1)) == ["name-mismatch", "name-mismatch"]


def test_without_roots_nothing_is_called_valid(ca: MemoryCa) -> None:
    with served(svid_server(ca)) as port:
        said = seen(port, status=1)
        assert said["verdict"] == "not judged"
        assert said["client_certificate"]["answer"] == "not-asked"
        assert "--roots" in run(f"localhost:{port}", status=1).stdout
    with served(web_server(ca)) as port:
        assert seen(port, status=1)["verdict"] == "not judged"


# Chains


def test_a_missing_intermediate_is_named(ca: MemoryCa) -> None:
    svid = ca.issue("shop")
    with served(plain_server(svid.chain[:1], private(svid.key))) as port:
        said = seen(port, "--roots", "root.crt", status=1)
        assert codes(said) == ["incomplete-chain"]
        (remark,) = said["remarks"]
        assert remark.startswith("the issuer of certificate 1, CN=mtls-mesh-issuing-ca")
        assert remark.endswith("was not sent")


def test_the_chain_is_shown_in_the_order_in_which_it_was_sent(ca: MemoryCa) -> None:
    svid = ca.issue("shop")
    chain = (svid.leaf, ca.root.certificate, *svid.intermediates)
    with served(plain_server(chain, private(svid.key))) as port:
        said = seen(port, "--roots", "root.crt", status=0)
        assert [cert["what"] for cert in said["chain"]] == ["X.509-SVID", "root CA", "issuing CA"]
        assert said["remarks"] == [
            "certificate 2 is not the issuer of certificate 1",
            "certificate 3 is not the issuer of certificate 2",
            "certificate 2 is a root, which need not be sent",
        ]


def test_another_meshs_server_is_invalid(here: Path, ca: MemoryCa) -> None:
    other = MemoryCa()
    (here / "other.crt").write_bytes(other.bundle.to_pem())
    with served(svid_server(ca)) as port:
        assert "unknown-authority" in codes(seen(port, "--roots", "other.crt", status=1))
    (here / "both.crt").write_bytes(certificates_pem([other.root.certificate, ca.root.certificate]))
    with served(svid_server(ca)) as port:
        assert seen(port, "--roots", "both.crt", status=0)["verdict"] == "valid"


# Servers of the web


def test_a_server_of_the_web_is_judged_by_its_host(ca: MemoryCa) -> None:
    with served(web_server(ca)) as port:
        said = seen(port, "--roots", "root.crt", status=0)
        assert (said["purpose"], said["verdict"]) == ("server", "valid")
        wrong = seen(port, "--roots", "root.crt", "--hostname", "elsewhere.example", status=1)
        assert codes(wrong) == ["name-mismatch"]
        named = seen(port, "--roots", "root.crt", "--servername", "elsewhere.example", status=1)
        assert codes(named) == ["name-mismatch"]
        assert named["servername"] == "elsewhere.example"


def test_this_systems_roots_count_for_the_web_and_not_for_svids(
    ca: MemoryCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "root.crt")
    with served(web_server(ca)) as port:
        said = seen(port, status=0)
        assert said["roots"] == ["root.crt"]
    with served(svid_server(ca)) as port:
        assert seen(port, status=1)["verdict"] == "not judged"


def test_what_is_wrong_with_a_server_of_the_web_is_named(here: Path, ca: MemoryCa) -> None:
    now = datetime.now(UTC)
    ended = web_chain(ca, start=now - 2 * HOUR, end=now - HOUR)
    with served(plain_server(ended, private(key(9)))) as port:
        assert codes(seen(port, "--roots", "root.crt", status=1)) == ["expired"]
    with served(plain_server(web_chain(ca)[:1], private(key(9)))) as port:
        said = seen(port, "--roots", "root.crt", status=1)
        assert codes(said) == ["unknown-authority"]
        assert "was not sent" in said["remarks"][0]
    with served(plain_server([ca.issuing.certificate], private(ca.issuing.key))) as port:
        said = seen(port, "--roots", "root.crt", status=1)
        assert "bad-certificate" in codes(said) or "not-an-svid" in codes(said)


def test_older_versions_are_told(ca: MemoryCa) -> None:
    def at_most_1_2(context: SSL.Context) -> None:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)

    with served(web_server(ca, change=at_most_1_2)) as port:
        said = seen(port, "--roots", "root.crt", status=0)
        assert said["protocol"] == "TLSv1.2"
        refused = seen(port, "--tls", "1.3", status=1)
        assert codes(refused) == ["protocol-version"]
        assert "does not speak TLS 1.3" in refused["problems"][0]["detail"]
        assert refused["verdict"] == "not judged"
        assert refused["client_certificate"]["asked_for"] is None
        assert refused["client_certificate"]["answer"] == "unknown"


def test_a_server_that_asks_by_tls_1_2_refuses_in_its_handshake(ca: MemoryCa) -> None:
    def demanding(context: SSL.Context) -> None:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: False)

    with served(web_server(ca, change=demanding)) as port:
        said = seen(port, "--roots", "root.crt", status=1)
        assert said["client_certificate"]["asked_for"] is True
        assert said["client_certificate"]["answer"] == "refused"
        assert len(said["chain"]) == 2


def test_the_cas_that_a_server_names_are_told(here: Path, ca: MemoryCa) -> None:
    with served(web_server(ca, change=asking(here / "root.crt"))) as port:
        said = seen(port, "--roots", "root.crt", status=0)
        assert said["client_certificate"]["asked_for"] is True
        (named,) = said["client_certificate"]["cas"]
        assert named == said["chain"][1]["issuer"]
        assert said["client_certificate"]["answer"] == "accepted"


def test_who_hangs_up_without_a_word_has_not_let_us_in(ca: MemoryCa) -> None:
    def hang_up(tls: SSL.Connection, connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)

    with served(web_server(ca, change=asking(), end=hang_up)) as port:
        said = seen(port, "--roots", "root.crt", status=1)
        assert said["client_certificate"]["answer"] == "closed"
        assert codes(said) == ["interrupted"]


def test_data_that_comes_by_itself_is_a_welcome(ca: MemoryCa) -> None:
    def greet(tls: SSL.Connection, connection: socket.socket) -> None:
        tls.send(b"220 welcome\r\n")
        connection.sendall(tls.bio_read(65536))
        until_goodbye(tls, connection)

    with served(web_server(ca, change=asking(), end=greet)) as port:
        said = seen(port, "--roots", "root.crt", status=0)
        assert said["client_certificate"]["answer"] == "accepted"


def test_protocols_are_offered_and_the_chosen_one_is_told(ca: MemoryCa) -> None:
    def second(context: SSL.Context) -> None:
        context.set_alpn_select_callback(lambda _, offered: offered[-1])

    with served(web_server(ca, change=second)) as port:
        assert seen(port, "--roots", "root.crt", status=0)["alpn"] == "http/1.1"
        wanted = ("--alpn", "a", "--alpn", "b")
        assert seen(port, "--roots", "root.crt", *wanted, status=0)["alpn"] == "b"
    assert "--alpn" in run("localhost:1", "--alpn", "", status=2).stderr


# Staples


def stapled(
    ca: MemoryCa, leaf: x509.Certificate, standing: Standing | Revocation, ago: timedelta
) -> bytes:
    now = datetime.now(UTC).replace(microsecond=0) - ago
    responder = Responder(ca.issuing.certificate, ca.issuing.key)
    said = SingleResponse(
        responder.identity.cert_id(leaf.serial_number), standing, now, now + HOUR / 6
    )
    return asyncio.run(responder.respond([said], produced_at=now))


@pytest.mark.parametrize("kind", ["good", "revoked", "bad"])
def test_a_staple_is_judged(ca: MemoryCa, kind: str) -> None:
    svid = ca.issue("shop")
    now = datetime.now(UTC).replace(microsecond=0)
    revoked = Revocation(
        ca.issuing.key_id, svid.leaf.serial_number, now, Reason.KEY_COMPROMISE, now + HOUR
    )
    answer = stapled(
        ca,
        svid.leaf,
        revoked if kind == "revoked" else Standing.GOOD,
        HOUR / 2 if kind == "bad" else timedelta(0),
    )

    def staple(context: SSL.Context) -> None:
        context.set_ocsp_server_callback(lambda connection, data: answer)

    with served(plain_server(svid.chain, private(svid.key), change=staple)) as port:
        said = seen(port, "--roots", "root.crt", status=0 if kind == "good" else 1)
        assert said["staple"]["status"] == kind
        assert codes(said) == {"good": [], "revoked": ["revoked"], "bad": ["staple-refused"]}[kind]


# Before TLS


def until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += connection.recv(1)
    return data


def postgres(connection: socket.socket) -> None:
    assert until(connection, bytes.fromhex("04d2162f")) == bytes.fromhex("0000000804d2162f")
    connection.sendall(b"S")


def smtp(connection: socket.socket) -> None:
    connection.sendall(b"220-hello\r\n220 mail.example\r\n")
    assert until(connection, b"\r\n").startswith(b"EHLO ")
    connection.sendall(b"250-mail.example\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
    assert until(connection, b"\r\n") == b"STARTTLS\r\n"
    connection.sendall(b"220 go ahead\r\n")


def ldap(connection: socket.socket) -> None:
    until(connection, b"20037")
    connection.sendall(bytes.fromhex("300c02010178070a010004000400"))


@pytest.mark.parametrize("begin", [postgres, smtp, ldap], ids=["postgres", "smtp", "ldap"])
def test_what_comes_before_tls_is_spoken(ca: MemoryCa, begin: Callable[..., None]) -> None:
    with served(web_server(ca, begin=begin)) as port:
        name = begin.__name__
        said = seen(port, "--roots", "root.crt", "--starttls", name, status=0)
        assert said["verdict"] == "valid"


@pytest.mark.parametrize(
    ("name", "answer", "told"),
    [
        ("postgres", b"N", "without TLS"),
        ("postgres", b"H", "no PostgreSQL"),
        ("smtp", b"500 no\r\n", "no mail server"),
        ("smtp", b"220 a\r\n250 b\r\n", "does not offer STARTTLS"),
        ("smtp", b"220 a\r\n250 STARTTLS\r\n454 not now\r\n", "refuses STARTTLS: 454 not now"),
        ("smtp", b"220-" + b"a" * 5000, "has no end"),
        ("ldap", b"HTTP/1.1", "no LDAP server"),
        ("ldap", bytes.fromhex("300c02010178070a013504000400"), "refuses StartTLS (result 53)"),
        ("ldap", bytes.fromhex("3084ffffffff"), "no LDAP server"),
    ],
    ids=["n", "http", "500", "not offered", "refused", "endless", "http-ldap", "53", "huge"],
)
def test_a_refusal_before_tls_is_told(name: str, answer: bytes, told: str) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with served(refuse) as port:
        said = run(f"localhost:{port}", "--starttls", name, status=3)
        assert (said.stdout, said.stderr.count("\n")) == ("", 1)
        assert told in said.stderr
        assert f"localhost:{port}" in said.stderr


# Nobody there


def test_nobody_there_is_status_3_in_a_sentence() -> None:
    port = free_port()
    said = run(f"127.0.0.1:{port}", status=3)
    assert said.stderr == (
        f"pki-inspect: no server answers at 127.0.0.1:{port}: nobody listens there "
        "(start it, or check address and port)\n"
    )
    encoded = json.loads(run(f"127.0.0.1:{port}", "--format", "json", status=3).stdout)
    assert encoded["verdict"] == "unreachable"
    assert encoded["problems"][0]["code"] == "unreachable"
    assert "cannot be looked up" in run("nobody.invalid:1", status=3).stderr


def test_who_speaks_no_tls_is_status_3() -> None:
    def speak_http(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with served(speak_http) as port:
        said = run(f"localhost:{port}", status=3)
        assert "does not speak TLS" in said.stderr


def test_who_hangs_up_at_once_is_status_3() -> None:
    with served(lambda connection: None) as port:
        assert "closed it" in run(f"localhost:{port}", status=3).stderr


def test_silence_ends_by_the_deadline() -> None:
    with served(
        lambda connection: (connection.recv(65536), connection.recv(1))[0] and None
    ) as port:
        with pytest.raises(Failed, match=r"does not answer the handshake within 0\.2 s"):
            probe(Target("127.0.0.1", port), Wishes(seconds=0.2))
        with pytest.raises(Failed, match=r"does not answer before TLS within 0\.2 s"):
            probe(Target("127.0.0.1", port), Wishes(seconds=0.2, starttls="smtp"))


@given(st.binary(max_size=100))
def test_whatever_comes_back_is_a_sentence(answer: bytes) -> None:
    def babble(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    with served(babble) as port:
        try:
            found = probe(Target("127.0.0.1", port), Wishes(seconds=5))
        except Failed as failed:
            assert str(failed).isprintable()
        else:
            assert found.problem is not None


@pytest.fixture(scope="module")
def sent(ca: MemoryCa) -> tuple[list[bytes], bytes]:
    """A good chain, and a good staple."""
    svid = ca.issue("shop")
    chain = [certificate.public_bytes(Encoding.DER) for certificate in svid.chain]
    return chain, stapled(ca, svid.leaf, Standing.GOOD, timedelta(0))


@pytest.mark.filterwarnings("ignore::UserWarning")  # cryptography's, of odd names
@given(st.data())
def test_whatever_is_shown_and_stapled_is_judged_or_told_as_not(
    ca: MemoryCa, sent: tuple[list[bytes], bytes], data: st.DataObject
) -> None:
    good, answer = sent
    chain = [data.draw(st.one_of(st.just(der), damaged([der]))) for der in good]
    staple = data.draw(st.one_of(st.just(answer), damaged([answer]), st.binary(max_size=9)))
    found = Probed(Target("localhost", 1), chain=tuple(chain), staple=staple)
    trusted = data.draw(st.sampled_from([[], [Trusted("x", (ca.root.certificate,))]]))
    judged = judge_probed(
        found,
        trusted,
        lambda: None,
        patterns=(),
        hosts=("localhost",),
        servername="",
        now=datetime.now(UTC),
    )
    if chain[0] != good[0] or not trusted:
        assert not judged.ok
    for shown in (probe_text(found, Wishes(), judged), probe_json(found, Wishes(), judged)):
        assert all(line.isprintable() for line in unstyle(shown).splitlines())


# The command line


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:9443", "localhost", 9443),
        (":9443", "localhost", 9443),
        ("[::1]:9443", "::1", 9443),
        ("https://example.org", "example.org", 443),
        ("https://example.org:8443/path?x", "example.org", 8443),
    ],
)
def test_a_target_is_read(text: str, host: str, port: int) -> None:
    target = Target.parse(text)
    assert target == Target(host, port)
    assert Target.parse(str(target)) == target


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_sentence(text: str) -> None:
    try:
        target = Target.parse(text)
    except Malformed as error:
        assert str(error).isprintable()
    else:
        assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "arguments",
    [
        ("localhost",),
        ("localhost:0",),
        ("::1:9443",),
        ("user@host:1",),
        ("localhost:1", "--svid", "absent"),
        ("localhost:1", "--roots", "absent"),
        ("localhost:1", "--roots", "me/svid_key.pem"),
        ("localhost:1", "--timeout", "soon"),
        ("localhost:1", "--timeout", "0s"),
        ("localhost:1", "--timeout", "999999999d"),
        ("localhost:1", "--spiffe-id", "x"),
        ("localhost:1", "--servername", "a..b"),
        ("localhost:1", "--servername", "x" * 300),
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_is_status_2_and_one_sentence(arguments: tuple[str, ...]) -> None:
    said = run(*arguments, status=2)
    assert said.stdout == ""
    assert said.stderr
    assert "\n" not in said.stderr


def test_the_program_probes_and_loads_no_reactor(ca: MemoryCa) -> None:
    with served(endpoint(ca.member("shop"))) as port:
        check = (
            "import sys; from twisted_mesh.cli.inspect import main;"
            f"status = main(['probe', 'localhost:{port}', '--svid', 'me']);"
            "print(status, 'twisted' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
        assert done.stdout.endswith("\n0 False\n")
        assert done.stderr == ""
