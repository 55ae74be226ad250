"""``pki-inspect``: what it shows, what it decides, and what it says when it can do neither."""

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from pki.errors import HOSTILE_INPUT
from pki.issuing.authority import Authority
from pki.issuing.profile import ROOT as ROOT_PROFILE
from pki.issuing.profile import WORKLOAD
from pki.keys import KeyAlgorithm
from pki.ocsp.sign import Responder, SingleResponse, Standing
from pki.spiffe import SpiffePattern
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import Purpose, certificates_pem, load_certificates
from pki.validity import rfc3339
from tests.authorities import (
    BACKEND,
    DAY,
    HOUR,
    MESH,
    NOW,
    OTHER,
    csr_builder,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
    pem,
    sign_crl,
)
from tests.pki.inspect.oddities import ODDITIES, certificate, oid, seq
from twisted_mesh.cli import inspect_verify
from twisted_mesh.cli.inspect import Unusable, cli

ROOT = Path(__file__).resolve().parents[3]
VECTORS = ROOT / "tests" / "vectors"
PROGRAM = [sys.executable, str(ROOT / "bin" / "pki-inspect")]
DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM
AT = rfc3339(NOW)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a good chain, and the working directory."""
    (tmp_path / "root.crt").write_bytes(mesh().bundle.to_pem())
    leaf = asyncio.run(_leaf_with_names())
    (tmp_path / "leaf.pem").write_bytes(certificates_pem([leaf]))
    (tmp_path / "issuing.pem").write_bytes(certificates_pem([mesh().issuing.certificate]))
    (tmp_path / "svid.pem").write_bytes(certificates_pem([leaf, mesh().issuing.certificate]))
    (tmp_path / "key.pem").write_bytes(key(9).to_pem())
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def _leaf_with_names() -> x509.Certificate:
    ca = mesh().issuing
    addresses = [ip_address("127.0.0.1")]
    return await ca.sign(
        ca.draft(
            key(9).public_key, BACKEND, NOW, HOUR, dns_names=["localhost"], ip_addresses=addresses
        )
    )


def run(*arguments: str, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(cli, arguments, input=stdin, standalone_mode=False)
    if isinstance(result.exception, Unusable):
        result.exit_code = result.exception.exit_code
        result.stderr_bytes = result.exception.message.encode()
    elif result.exception:
        raise result.exception
    else:
        result.exit_code = result.return_value
    return result


def verify(*arguments: str, status: int, roots: str = "root.crt", at: str = AT) -> dict[str, Any]:
    """The verdict in JSON; the text has the same status and names every problem."""
    common = ("verify", *arguments, "--roots", roots, "--at", at)
    text, encoded = run(*common), run(*common, "--format", "json")
    assert (text.exit_code, encoded.exit_code) == (status, status)
    verdict: dict[str, Any] = json.loads(encoded.stdout)
    assert set(verdict) == {"verdict", "problems", "chain"}
    assert verdict["verdict"] == ("invalid" if status else "valid")
    assert bool(verdict["problems"]) is bool(status)
    for problem in verdict["problems"]:
        assert set(problem) == {"code", "subject", "rule", "detail", "remedy"}
        assert f"{problem['code']}: {problem['detail']}" in text.stdout
    assert f"verdict: {verdict['verdict']}" in text.stdout
    return verdict


def codes(verdict: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in verdict["problems"]]


def refused(*arguments: str, stdin: bytes = b"") -> str:
    """The one sentence about input that cannot be used."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "\n" not in result.stderr
    return result.stderr


def program(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env=environment, **options
    )


# What show shows


def test_an_svid_is_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(VECTORS)
    result = run("show", "svid.pem", "--at", "2026-11-23T10:30:00Z")
    assert result.stdout == (VECTORS / "svid.txt").read_text()


def test_json_holds_every_fact_of_an_svid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(VECTORS)
    (shown,) = json.loads(
        run("show", "svid.pem", "--at", "2026-11-23T10:30:00Z", "--format", "json").stdout
    )
    text = (VECTORS / "svid.txt").read_text()
    assert (shown["source"], shown["what"]) == ("svid.pem", "X.509-SVID")
    assert shown["seconds_left"] == 1800
    assert shown["serial"] == shown["serial"].lower()
    assert bytes.fromhex(shown["serial"]).hex(":").upper() in text
    for digest in (shown["sha256"], shown["sha1"], shown["public_key"]["spki_sha256"]):
        assert bytes.fromhex(digest).hex(":").upper() in text
    for extension in shown["extensions"]:
        assert extension["name"] in text
        assert all(value in text for value in extension["values"])


def test_several_files_and_several_certificates_are_shown_in_order(here: Path) -> None:
    (here / "request.pem").write_bytes(
        csr_builder().sign(key().private_key, key().algorithm.hash).public_bytes(PEM)
    )
    (here / "leaf.der").write_bytes(mesh().leaf().public_bytes(DER))
    arguments = ("show", "svid.pem", "leaf.der", "request.pem", "root.crt", "--at", AT)
    shown = json.loads(run(*arguments, "--format", "json").stdout)
    assert [(item["source"], item["what"]) for item in shown] == [
        ("svid.pem", "X.509-SVID"),
        ("svid.pem", "issuing CA"),
        ("leaf.der", "X.509-SVID"),
        ("request.pem", "CSR"),
        ("root.crt", "root CA"),
    ]
    text = run(*arguments).stdout
    for heading in (
        "X.509-SVID  svid.pem (1 of 2)",
        "issuing CA  svid.pem (2 of 2)",
        "CSR  request.pem",
    ):
        assert f"{heading}\n" in text
    assert "  proof of key" in text


def test_a_root_says_whether_it_signed_itself(here: Path) -> None:
    assert "yes, and signed by its own key" in run("show", "root.crt").stdout
    name = mesh().root.certificate.subject
    rsa = key("rsa", KeyAlgorithm.RSA_2048)
    forged = forge(mesh().issuing, ROOT_PROFILE, subject=name, issuer_name=name, subject_key=rsa)
    (here / "forged.pem").write_bytes(forged.public_bytes(PEM))
    text = run("show", "forged.pem").stdout
    assert "yes, but signed by another key" in text
    assert "2048 bits, exponent 65537" in text


def test_standard_input_is_shown(here: Path) -> None:
    result = run("show", "-", "--at", AT, stdin=(here / "leaf.pem").read_bytes())
    assert result.stdout.startswith("X.509-SVID  standard input\n")


def test_a_private_key_beside_a_certificate_is_named_and_not_shown(here: Path) -> None:
    both = (here / "key.pem").read_bytes() + (here / "leaf.pem").read_bytes()
    result = run("show", "-", "--at", AT, stdin=both)
    assert result.stdout.startswith("private key  standard input (1 of 2)\n")
    secret = (here / "key.pem").read_text().splitlines()[1]
    assert secret not in result.stdout
    assert secret not in run("show", "-", "--format", "json", stdin=both).stdout


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (NOW - DAY, "begins in 23h 59m"),
        (NOW + HOUR, "0s"),
        (NOW + HOUR + timedelta(seconds=1), "expired 1s ago"),
        (NOW + timedelta(minutes=1), "59m"),
    ],
)
def test_time_left_is_told_for_people(at: Any, said: str) -> None:
    assert (
        f"time left                    {said}"
        in run("show", "leaf.pem", "--at", rfc3339(at)).stdout
    )


def test_unknown_and_damaged_extensions_are_shown_with_their_bytes(here: Path) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\xab" * 200)
    damaged = x509.UnrecognizedExtension(x509.NameConstraints.oid, b"\xde\xad")
    cert = forge(
        mesh().issuing,
        replace={
            x509.UnrecognizedExtension: (unknown, False),
            x509.NameConstraints: (damaged, True),
        },
    )
    (here / "odd.pem").write_bytes(cert.public_bytes(PEM))
    text = run("show", "odd.pem").stdout
    assert "  1.2.3.4 " in text
    assert ":".join(["AB"] * 32) in text
    assert "and 72 bytes more: --format json shows them all" in text
    assert "cannot be decoded; its bytes:" in text
    assert "DE:AD" in text
    (shown,) = json.loads(run("show", "odd.pem", "--format", "json").stdout)
    found = {extension["oid"]: extension for extension in shown["extensions"]}
    assert found["1.2.3.4"]["hex"] == "ab" * 200
    assert found["2.5.29.30"]["damaged"] is True


def test_long_lists_are_cut_for_people_only(here: Path) -> None:
    many = x509.SubjectAlternativeName([x509.DNSName(f"h{n}") for n in range(60)])
    cert = forge(mesh().issuing, replace={x509.SubjectAlternativeName: (many, False)})
    (here / "many.pem").write_bytes(cert.public_bytes(PEM))
    assert "and 10 more: --format json shows them all" in run("show", "many.pem").stdout
    assert "DNS:h59" in run("show", "many.pem", "--format", "json").stdout


def test_no_control_character_of_a_name_is_printed(here: Path) -> None:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\nverdict: valid\x1b[2J")])
    cert = forge(mesh().issuing, subject=subject)
    (here / "evil.pem").write_bytes(certificates_pem([cert, mesh().issuing.certificate]))
    shown = run("show", "evil.pem").stdout
    verified = run("verify", "evil.pem", "--roots", "root.crt").stdout
    for text in (shown, verified):
        assert "\x1b" not in text
        assert "a\\nverdict: valid\\x1b[2J" in text


# What verify decides


def test_a_good_chain_is_valid() -> None:
    verdict = verify("svid.pem", status=0)
    assert [link["what"] for link in verdict["chain"]] == ["X.509-SVID", "issuing CA", "root CA"]
    assert all(link["signed_by"]["ok"] and link["dates_ok"] for link in verdict["chain"])
    assert [link["is_root"] for link in verdict["chain"]] == [False, False, True]
    assert [link["problems"] for link in verdict["chain"]] == [[], [], []]
    text = run("verify", "svid.pem", "--roots", "root.crt", "--at", AT).stdout
    assert "certificate 0: X.509-SVID CN=backend\n" in text
    assert "signed by     CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local: ok\n" in text
    assert "dates         ok, 1h 0m left\n" in text


def test_intermediates_may_come_apart_among_others(here: Path) -> None:
    others = [forge_issuing(forge_root(70 + n), 80 + n).certificate for n in range(12)]
    (here / "many.pem").write_bytes(certificates_pem([*others, mesh().issuing.certificate]))
    assert codes(verify("leaf.pem", status=1)) == ["incomplete-chain"]
    # The others have the same name: all of them might stand above the leaf, which is too many.
    assert codes(verify("leaf.pem", "--intermediates", "many.pem", status=1)) == ["malformed"]
    others = [mesh(OTHER).issuing.certificate, mesh(OTHER).root.certificate]
    (here / "few.pem").write_bytes(certificates_pem(others))
    verify("leaf.pem", "--intermediates", "few.pem", "--intermediates", "issuing.pem", status=0)


def test_the_leaf_may_come_from_standard_input(here: Path) -> None:
    svid = (here / "svid.pem").read_bytes()
    assert run("verify", "-", "--roots", "root.crt", "--at", AT, stdin=svid).exit_code == 0


@pytest.mark.parametrize("names", [("--hostname", "localhost"), ("--ip", "127.0.0.1")])
def test_a_host_name_that_is_in_it_passes(names: tuple[str, ...]) -> None:
    verify("svid.pem", *names, "--spiffe-id", "spiffe://mesh.local/service/*", status=0)


def test_every_name_must_match() -> None:
    verdict = verify(
        *("svid.pem", "--hostname", "localhost", "--hostname", "api.example", "--ip", "127.0.0.2"),
        *(
            "--spiffe-id",
            "spiffe://mesh.local/**",
            "--spiffe-id",
            "spiffe://mesh.local/service/api",
        ),
        status=1,
    )
    assert codes(verdict) == ["name-mismatch"] * 3
    assert [problem["detail"] for problem in verdict["problems"]] == [
        "certificate is valid for spiffe://mesh.local/service/backend, not spiffe://mesh.local/service/api",
        "certificate is valid for localhost, 127.0.0.1, not api.example",
        "certificate is valid for localhost, 127.0.0.1, not 127.0.0.2",
    ]


def test_a_time_decides() -> None:
    assert codes(verify("svid.pem", status=1, at=rfc3339(NOW + 2 * HOUR))) == ["expired"]
    assert (
        codes(verify("svid.pem", status=1, at="2026-11-23T10:59:29.5+01:00"))
        == ["not-yet-valid"] * 3
    )
    verify("svid.pem", status=0, at="2026-11-23T11:59:59.5+01:00")


def test_every_problem_is_told_at_once(here: Path) -> None:
    expired = forge(
        mesh().issuing, start=NOW - 2 * HOUR, end=NOW - HOUR, replace={x509.ExtendedKeyUsage: None}
    )
    (here / "bad.pem").write_bytes(certificates_pem([expired]))
    verdict = verify("bad.pem", status=1)
    assert set(codes(verdict)) == {"expired", "wrong-usage", "incomplete-chain"}
    assert set(verdict["chain"][0]["problems"]) == set(codes(verdict))


def test_purposes_ask_for_their_usage_only(here: Path) -> None:
    server = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    cert = forge(mesh().issuing, WORKLOAD, replace={x509.ExtendedKeyUsage: (server, False)})
    (here / "server.pem").write_bytes(certificates_pem([cert, mesh().issuing.certificate]))
    verify("server.pem", "--purpose", "server", status=0)
    assert codes(verify("server.pem", "--purpose", "client", status=1)) == ["wrong-usage"]
    assert codes(verify("server.pem", "--purpose", "svid", status=1)) == ["wrong-usage"]


def test_roots_vouch_for_their_own_trust_domain_only(here: Path) -> None:
    other = mesh(OTHER)
    (here / "other.crt").write_bytes(other.bundle.to_pem())
    (here / "forged.pem").write_bytes(certificates_pem([forge(other.root)]))
    assert codes(verify("forged.pem", roots="other.crt", status=1)) == ["unknown-trust-domain"]
    verdict = verify("forged.pem", "--roots", "other.crt", status=1)
    assert codes(verdict) == ["unknown-authority"]
    assert verdict["chain"][0]["signed_by"]["detail"].startswith("ok, and that does not lead")


def test_roots_without_a_trust_domain_count_for_the_leafs() -> None:
    plain = forge_root(90, uris=[], replace={x509.SubjectAlternativeName: None}).certificate
    named = mesh(OTHER).root.certificate
    alone = inspect_verify.bundles_of([[plain]], BACKEND)
    assert [bundle.trust_domain for bundle in alone] == [MESH]
    # In a file of one trust domain, a root without a name belongs to that.
    together = inspect_verify.bundles_of([[plain, named]], BACKEND)
    assert [(b.trust_domain, b.roots) for b in together] == [(OTHER, (plain, named))]
    assert list(inspect_verify.bundles_of([[plain]], None)) == []


@pytest.mark.parametrize("uri", ["https://web.example", "spiffe://"])
def test_a_root_with_another_kind_of_uri_names_no_trust_domain(uri: str) -> None:
    odd = forge_root(91, uris=[uri]).certificate
    assert [bundle.trust_domain for bundle in inspect_verify.bundles_of([[odd]], BACKEND)] == [MESH]


@pytest.mark.parametrize("content", ["issuing.pem", "root.crt"])
def test_a_ca_certificate_is_no_svid(content: str) -> None:
    assert "not-an-svid" in codes(verify(content, status=1))


def test_a_damaged_signature_is_told_from_a_missing_issuer(here: Path) -> None:
    der = bytearray(mesh().leaf().public_bytes(DER))
    der[-1] ^= 1
    (here / "damaged.der").write_bytes(der)
    verdict = verify("damaged.der", "--intermediates", "issuing.pem", status=1)
    assert verdict["chain"][0]["signed_by"] == {
        "issuer": "CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local",
        "ok": False,
        "detail": "its signature is not of that issuer's key",
    }


SPECIMENS = [
    cert.public_bytes(DER)
    for cert in (mesh().leaf(), mesh().issuing.certificate, mesh().root.certificate)
]


@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_no_mutated_certificate_makes_verify_raise(
    which: int, changes: list[tuple[int, int]]
) -> None:
    mutated = bytearray(SPECIMENS[which])
    for position, octet in changes:
        mutated[position % len(mutated)] = octet
    ders = [*SPECIMENS[:which], bytes(mutated), *SPECIMENS[which + 1 :]]
    try:
        leaf, issuing, root = map(x509.load_der_x509_certificate, ders)
    except HOSTILE_INPUT:
        return
    verdict, links = inspect_verify.verify(
        leaf,
        [issuing],
        [[root]],
        now=NOW,
        purpose=Purpose.ANY,
        patterns=[SpiffePattern.parse("spiffe://mesh.local/**")],
    )
    assert not verdict.ok or ders[:2] == SPECIMENS[:2]
    assert len(links) == len(verdict.path)


# What cannot be used


def archive() -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"x", key(9).private_key, mesh().leaf(), None, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "bad: there is nothing in it"),
        (b"hello", "bad: it is neither PEM nor DER, or is damaged: give a certificate or a CSR"),
        (
            archive(),
            "bad holds only what is not shown: PKCS #12 archive; give a certificate or a CSR",
        ),
        (
            key().to_pem(),
            "bad holds only what is not shown: private key; give a certificate or a CSR",
        ),
        (SPECIMENS[0][:-1], "bad: it is neither PEM nor DER, or is damaged"),
        (b"0\x82", "bad: it is neither PEM nor DER, or is damaged"),
        (b" " * (10 * 1024 * 1024 + 1), "bad is larger than 10 MB: give the certificates only"),
    ],
    ids=["empty", "text", "pkcs12", "key", "cut short", "no length", "huge"],
)
def test_unusable_input_is_said_in_one_sentence(here: Path, content: bytes, said: str) -> None:
    (here / "bad").write_bytes(content)
    assert refused("show", "bad").startswith(said)
    refused("verify", "bad", "--roots", "root.crt")
    refused("verify", "svid.pem", "--roots", "bad")
    refused("verify", "svid.pem", "--roots", "root.crt", "--intermediates", "bad")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", ". cannot be read (Is a directory: name the file in it): name a certificate's file"),
        ("absent", "absent cannot be read (No such file or directory): name a certificate's file"),
        ("a\nb\x1b", "a\\nb\\x1b cannot be read (No such file or directory)"),
        ("a\0b", "a\\x00b cannot be read (no file has such a name)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, said: str) -> None:
    assert refused("show", name).startswith(said)


def test_a_request_has_no_chain_to_verify(here: Path) -> None:
    request = csr_builder().sign(key().private_key, key().algorithm.hash)
    (here / "request.pem").write_bytes(request.public_bytes(PEM))
    said = refused("verify", "request.pem", "--roots", "root.crt")
    assert said == "request.pem: it holds no certificate, but CSR: give a certificate in PEM or DER"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--at", "yesterday", "--at: 'yesterday' is not a time"),
        ("--at", "2026-11-23T10:00:00", "--at: '2026-11-23T10:00:00' is not a time"),
        ("--ip", "localhost", "--ip: 'localhost' is no IP address"),
        ("--spiffe-id", "mesh.local/x", "--spiffe-id: 'mesh.local/x' is not a SPIFFE ID"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(option: str, value: str, said: str) -> None:
    assert refused("verify", "svid.pem", "--roots", "root.crt", option, value).startswith(said)


# What is damaged, or odd


def bundle(here: Path, *ders: bytes) -> None:
    (here / "bundle.pem").write_bytes(b"".join(pem(der) for der in ders))


def test_what_cannot_be_read_is_named_and_hides_nothing(here: Path) -> None:
    leaf = mesh().leaf().public_bytes(DER)
    bundle(here, leaf, b"\x30\0", leaf)
    result = run("show", "bundle.pem", "leaf.pem")
    assert result.exit_code == 2
    assert result.stdout.count("valid from") == 3
    assert "certificate  bundle.pem (2 of 3)\n  unreadable" in result.stdout
    assert "X.509-SVID  leaf.pem" in result.stdout
    assert result.stderr == (
        "bundle.pem, block 2 of 3: a certificate in it cannot be decoded: it is an empty SEQUENCE, "
        "at byte 0; the rest is shown"
    )
    encoded = run("show", "bundle.pem", "--format", "json")
    assert encoded.exit_code == 2
    first, second, third = json.loads(encoded.stdout)
    assert (first["damaged"], second["damaged"], third["damaged"]) == (False, True, False)
    assert second["what"] == "certificate"


def test_one_file_of_several_hides_no_other(here: Path) -> None:
    (here / "bad").write_bytes(b"hello")
    result = run("show", "bad", "leaf.pem", "absent", "key.pem")
    assert result.exit_code == 2
    assert result.stdout.startswith("X.509-SVID  leaf.pem\n")
    assert result.stderr.startswith("key.pem holds only what is not shown")


def test_an_odd_certificate_is_shown_with_status_0(here: Path) -> None:
    bundle(here, ODDITIES["version 4"].der)
    result = run("show", "bundle.pem")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "it is of version 4" in result.stdout
    said = refused("verify", "bundle.pem", "--roots", "root.crt")
    assert said.startswith(
        "bundle.pem: the form of a certificate in it is one that is not judged (it is of version 4"
    )


def test_a_root_that_cannot_be_judged_by_is_left_out_and_said(here: Path) -> None:
    odd, root = ODDITIES["version 4"].der, mesh().root.certificate.public_bytes(DER)
    bundle(here, odd, root)
    common = ("verify", "svid.pem", "--roots", "bundle.pem", "--at", AT)
    result = run(*common)
    assert result.exit_code == 0
    encoded = run(*common, "--format", "json")
    (lost,) = json.loads(encoded.stdout)["unreadable"]
    assert lost.startswith("bundle.pem: block 1 of 2: the form of a certificate in it")
    assert refused("verify", "bundle.pem", "--roots", "root.crt").startswith(
        "bundle.pem: block 1 of 2: "
    )


def test_a_crl_that_is_refused_is_refused_with_the_place(here: Path) -> None:
    (here / "bad.crl").write_bytes(pem(ODDITIES["CRL with a damaged entry"].der, "X509 CRL"))
    said = refused("verify", "svid.pem", "--roots", "root.crt", "--at", AT, "--crl", "bad.crl")
    assert said.startswith("bad.crl: ")
    assert "entry 2 at byte 92 cannot be decoded: 'x' is no time" in said


def test_names_that_cannot_be_decoded_are_not_told_as_missing(here: Path) -> None:
    bundle(here, ODDITIES["damaged names"].der)
    wanted = ("--spiffe-id", "spiffe://mesh.local/x", "--hostname", "a.example", "--ip", "::1")
    verdict = verify("bundle.pem", *wanted, status=1)
    told = [p["detail"] for p in verdict["problems"] if p["code"] == "name-mismatch"]
    assert told == [
        f"the names in the certificate cannot be decoded: {name} may be one"
        for name in wanted[1::2]
    ]


def test_a_link_that_was_not_checked_is_not_told_as_failed(here: Path) -> None:
    """Whose signature is over SHA-1 was perhaps made by that key; whoever judges does not ask."""
    broken = certificate(algorithm=seq(oid("1.2.840.10045.4.1")))
    bundle(here, broken)
    verdict = verify("bundle.pem", status=1, roots="bundle.pem")
    (link,) = verdict["chain"]
    assert link["signed_by"]["ok"] is None
    assert link["signed_by"]["detail"] == "not checked: a signature over SHA-1 proves nothing"
    assert "failed" not in run("verify", "bundle.pem", "--roots", "bundle.pem", "--at", AT).stdout


# The program itself


@pytest.mark.parametrize("der", [b"", b"\x30\0", b"\x30\0\x30\0"])
@pytest.mark.parametrize("label", ["CERTIFICATE", "CERTIFICATE REQUEST"])
def test_the_program_says_in_one_sentence_that_there_is_nothing_to_show(
    here: Path, label: str, der: bytes
) -> None:
    (here / "nothing.pem").write_bytes(pem(der, label))
    shown = program("show", "nothing.pem")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert re.fullmatch(
        r"pki-inspect: nothing\.pem: a (certificate|CSR) in it cannot be decoded: [^\n]+\n",
        shown.stderr,
    )


def test_the_program_shows_and_verifies() -> None:
    shown = program("show", "svid.pem")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("X.509-SVID  svid.pem (1 of 2)\n")
    valid = program("verify", "svid.pem", "--roots", "root.crt", "--at", AT)
    assert (valid.returncode, valid.stderr) == (0, "")
    assert valid.stdout.endswith(f"verdict: valid as svid at {AT}\n")
    invalid = program("verify", "svid.pem", "--roots", "root.crt", "--hostname", "x", "--at", AT)
    assert (invalid.returncode, invalid.stderr) == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bogus"],
        ["show"],
        ["show", "key.pem"],
        ["show", "svid.pem", "--format", "xml"],
        ["verify", "svid.pem"],
        ["verify", "svid.pem", "--roots", "absent"],
        ["verify", "svid.pem", "--roots", "root.crt", "--purpose", "world peace"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_is_status_2_and_no_traceback(arguments: list[str]) -> None:
    result = program(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [[], ["show"], ["verify"]])
def test_help_has_examples(command: list[str]) -> None:
    result = program(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Examples:\n" in result.stdout
    assert "pki-inspect verify" in result.stdout or command == ["show"]


def test_help_loads_neither_cryptography_nor_a_reactor() -> None:
    check = (
        "import sys, twisted_mesh.cli.inspect;"
        "print([m for m in ('cryptography', 'twisted', 'rich', 'pki', 'OpenSSL') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_commands_load_no_reactor() -> None:
    check = (
        "import sys; from twisted_mesh.cli.inspect import main;"
        "main(['verify', 'svid.pem', '--roots', 'root.crt', '--hostname', 'localhost']);"
        "print('twisted' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.stdout.endswith("\nFalse\n")


def test_a_reader_that_goes_away_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [*PROGRAM, "show", "svid.pem"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["show", "svid.pem"], ["--help"]])
def test_output_that_cannot_be_written_is_said(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [*PROGRAM, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert result.returncode == 2
    (sentence,) = result.stderr.decode().splitlines()
    assert sentence == (
        "pki-inspect: the output cannot be written (No space left on device): free some space"
    )


def test_names_are_printed_in_any_locale(here: Path) -> None:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Bücher")])
    (here / "utf.pem").write_bytes(forge(mesh().issuing, subject=subject).public_bytes(PEM))
    result = program("show", "utf.pem", env={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "CN=B\\xfccher" in result.stdout


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_without_no_color(no_color: str, coloured: bool) -> None:
    controller, terminal = os.openpty()
    try:
        subprocess.run(
            [*PROGRAM, "show", "svid.pem"],
            stdout=terminal,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": no_color},
            check=True,
        )
        seen = os.read(controller, 65536)
    finally:
        os.close(terminal)
        os.close(controller)
    assert (b"\x1b[" in seen) is coloured
    assert "\x1b" not in program("show", "svid.pem").stdout


# Revocation

ISSUING = mesh().issuing


def answer(
    here: Path, name: str, standing: Standing | Revocation, issuer: Authority = ISSUING
) -> None:
    (leaf,) = load_certificates((here / "leaf.pem").read_bytes())
    cert = leaf if issuer is ISSUING else mesh().issuing.certificate
    responder = Responder(issuer.certificate, issuer.key)
    told = SingleResponse(responder.identity.cert_id(cert.serial_number), standing, NOW, NOW + HOUR)
    (here / name).write_bytes(asyncio.run(responder.respond([told], produced_at=NOW)))


def serial(here: Path) -> int:
    (leaf,) = load_certificates((here / "leaf.pem").read_bytes())
    return leaf.serial_number


def by_issuing(here: Path, *serials: int) -> tuple[str, str]:
    """The options for a CRL of the issuing CA."""
    (here / "issuing.crl").write_bytes(sign_crl(mesh().issuing, serials=serials))
    return "--crl", "issuing.crl"


def by_root(here: Path, *serials: int) -> tuple[str, str]:
    der = sign_crl(mesh().root, serials=serials)
    (here / "root.crl").write_bytes(pem(der, "X509 CRL"))
    return "--crl", "root.crl"


def test_who_is_on_no_crl_is_valid(here: Path) -> None:
    verify("svid.pem", *by_issuing(here, 5), *by_root(here), status=0)


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_the_ends_of_time_are_times(here: Path, at: str) -> None:
    """A minute of tolerance for clocks leads out of the years that there are."""
    assert "expired" in codes(verify("svid.pem", at=at, status=1)) or at.startswith("0001")
    for evidence in (by_issuing(here), ("--ocsp", str(here / "good.ocsp"))):
        answer(here, "good.ocsp", Standing.GOOD)
        done = run("verify", "svid.pem", "--roots", "root.crt", "--at", at, *evidence)
        assert done.exit_code == 2, "the evidence does not hold at that time"
        assert "Overflow" not in repr(done.exception)


def test_who_is_on_a_crl_is_revoked(here: Path) -> None:
    verdict = verify("svid.pem", *by_issuing(here, 5, serial(here)), *by_root(here), status=1)
    assert codes(verdict) == ["revoked"]
    assert verdict["chain"][0]["problems"] == ["revoked"]


def test_a_revoked_issuing_ca_takes_its_leaf_along(here: Path) -> None:
    bad = mesh().issuing.certificate.serial_number
    verdict = verify("svid.pem", *by_issuing(here), *by_root(here, bad), status=1)
    assert codes(verdict) == ["revoked"]
    assert verdict["problems"][0]["subject"].startswith("CN=mtls-mesh-issuing-ca")


def test_a_root_that_lists_itself_is_believed_no_more(here: Path) -> None:
    bad = mesh().root.certificate.serial_number
    verdict = verify("svid.pem", *by_issuing(here), *by_root(here, bad), status=1)
    assert codes(verdict) == ["revoked"]
    assert verdict["problems"][0]["subject"].startswith("CN=mtls-mesh-root-ca")


def test_with_one_crl_every_issuer_needs_one(here: Path) -> None:
    assert codes(verify("svid.pem", *by_issuing(here), status=1)) == ["unknown-revocation"]
    assert codes(verify("svid.pem", *by_root(here), status=1)) == ["unknown-revocation"]


def test_an_answer_tells_of_the_leaf(here: Path) -> None:
    answer(here, "good.ocsp", Standing.GOOD)
    bad = Revocation(mesh().issuing.key_id, serial(here), NOW, Reason.KEY_COMPROMISE, NOW + HOUR)
    answer(here, "bad.ocsp", bad)
    verify("svid.pem", "--ocsp", "good.ocsp", status=0)
    assert codes(verify("svid.pem", "--ocsp", "bad.ocsp", status=1)) == ["revoked"]
    verify("svid.pem", "--ocsp", "good.ocsp", *by_root(here), status=0)
    assert codes(verify("svid.pem", "--ocsp", "good.ocsp", *by_issuing(here), status=1)) == [
        "unknown-revocation"
    ]
    answer(here, "root.ocsp", Standing.GOOD, mesh().root)
    assert codes(verify("svid.pem", "--ocsp", "root.ocsp", status=1)) == ["unknown-revocation"]
    verify("svid.pem", "--ocsp", "root.ocsp", "--ocsp", "good.ocsp", status=0)


@pytest.mark.parametrize(
    ("option", "data", "said"),
    [
        ("--crl", b"hello", "bad: it is neither PEM nor DER"),
        ("--crl", sign_crl(mesh(OTHER).issuing), "no certificate was given"),
        (
            "--crl",
            sign_crl(mesh().issuing, this_update=NOW - DAY, next_update=NOW - HOUR),
            "bad: crl-stale: the next one was due at 2026-11-23T09:00:00Z",
        ),
        (
            "--crl",
            sign_crl(forge_issuing(mesh().root, subject=mesh().issuing.certificate.subject)),
            "bad: crl-bad-signature",
        ),
        ("--ocsp", b"hello", "bad: it is neither PEM nor DER"),
        ("--ocsp", b"\x30\x03\x0a\x01\x03", "bad: it is an OCSP answer about no certificate"),
        ("--ocsp", sign_crl(mesh().issuing), "bad: the OCSP answer cannot be decoded"),
    ],
)
def test_a_crl_or_an_answer_that_cannot_be_relied_on_is_no_verdict(
    here: Path, option: str, data: bytes, said: str
) -> None:
    (here / "bad").write_bytes(data)
    arguments = ("verify", "svid.pem", "--roots", "root.crt", "--at", AT)
    assert said in refused(*arguments, option, "bad")
    assert "absent cannot be read" in refused(*arguments, option, "absent")


def test_crls_and_answers_are_shown(here: Path) -> None:
    by_issuing(here, 5)
    by_root(here)
    answer(here, "good.ocsp", Standing.GOOD)
    text = run("show", "issuing.crl", "root.crl", "good.ocsp").stdout
    for words in (
        "CRL  issuing.crl\n",
        "CRL  root.crl\n",
        "OCSP response  good.ocsp\n",
        "05 since 2026-11-23T10:00:00Z",
        "is good, from 2026-11-23T10:00:00Z",
    ):
        assert words in text
    shown = json.loads(
        run("show", "issuing.crl", "root.crl", "good.ocsp", "--format", "json").stdout
    )
    assert [item["what"] for item in shown] == ["CRL", "CRL", "OCSP response"]
    assert shown[0]["revoked"] == ["05 since 2026-11-23T10:00:00Z"]
    assert shown[0]["this_update"] == ["2026-11-23T10:00:00Z"]
    assert shown[2]["status"] == ["successful"]


def test_of_a_long_crl_people_see_the_beginning(here: Path) -> None:
    by_issuing(here, *range(1, 101))
    text = run("show", "issuing.crl").stdout
    assert "and 50 more: --format json shows them all" in text
    (shown,) = json.loads(run("show", "issuing.crl", "--format", "json").stdout)
    assert len(shown["revoked"]) == 100


# explain


def test_a_code_is_explained_with_what_to_do() -> None:
    shown = run("explain", "stale-revocation", "expired")
    assert shown.exit_code == 0
    first, second = shown.output.split("\n\n")
    assert first.splitlines()[0] == "stale-revocation"
    assert Code.EXPIRED.meaning in second
    assert Code.EXPIRED.remedy in second
    assert "`" not in shown.output


def test_without_a_code_all_are_listed() -> None:
    shown = run("explain")
    assert [line.split()[0] for line in shown.output.splitlines()] == list(Code)


def test_codes_are_explained_to_programs_too() -> None:
    (busy,) = json.loads(run("explain", "busy", "--format", "json").output)
    assert busy == {"code": "busy", "meaning": Code.BUSY.meaning, "remedy": Code.BUSY.remedy}
    assert [row["code"] for row in json.loads(run("explain", "--format", "json").output)] == [*Code]


@pytest.mark.parametrize(
    "text, hint", [("expird", "did you mean expired?"), ("\x1b[31m", "explain lists all")]
)
def test_what_is_no_code_is_said_in_a_sentence(text: str, hint: str) -> None:
    shown = run("explain", text)
    assert shown.exit_code == 2
    assert hint in shown.stderr
    assert shown.stderr.isprintable()
