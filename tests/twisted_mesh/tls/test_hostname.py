"""A certificate is valid for the host that was asked for, or says for which it is."""

import subprocess
import sys
from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from tests.authorities import forge, mesh
from twisted_mesh.tls.hostname import hostname_problem


def certificate(*names: x509.GeneralName) -> x509.Certificate:
    value = x509.SubjectAlternativeName(names)
    return forge(mesh().issuing, replace={x509.SubjectAlternativeName: (value, False)})


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)


CERTIFICATE = certificate(
    x509.UniformResourceIdentifier("spiffe://mesh.local/service/backend"),
    dns("localhost"),
    dns("*.pods.mesh.local"),
    dns("xn--bcher-kva.example"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.IPAddress(ip_address("::1")),
)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.pods.mesh.local",
        "bücher.example",
        "127.0.0.1",
        "::1",
        "0:0::1",
    ],
)
def test_is_valid_for(host: str) -> None:
    assert hostname_problem(CERTIFICATE, host) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost.example",
        "mesh.local",
        "a.b.pods.mesh.local",
        "pods.mesh.local",
        "127.0.0.2",
        "::2",
        "spiffe://mesh.local/service/backend",
        "mesh.local/service/backend",
        "",
        ".",
        "2130706433",
        "localhost\n",
        " localhost",
        "*.pods.mesh.local",
    ],
)
def test_is_not_valid_for(host: str) -> None:
    problem = hostname_problem(CERTIFICATE, host)
    assert problem is not None
    assert problem.code == "name-mismatch"


def test_the_problem_says_what_the_certificate_is_valid_for() -> None:
    problem = hostname_problem(CERTIFICATE, "api.example")
    assert problem is not None
    assert problem.detail == (
        "certificate is valid for localhost, *.pods.mesh.local, xn--bcher-kva.example, 127.0.0.1, ::1, "
        "not api.example"
    )


def test_long_lists_of_names_are_cut() -> None:
    problem = hostname_problem(certificate(*(dns(f"h{n}") for n in range(12))), "x")
    assert problem is not None
    assert "h9 and 2 more, not x" in problem.detail


def test_an_svid_without_host_names_is_valid_for_none() -> None:
    problem = hostname_problem(mesh().leaf(), "localhost")
    assert problem is not None
    assert "valid for no host name or IP address, not localhost" in problem.detail


@pytest.mark.parametrize(
    "odd",
    [
        x509.UniformResourceIdentifier("https://web.example:8443/"),
        x509.UniformResourceIdentifier("no-colon"),
        dns("*.com"),
        dns("10.0.0.1"),
        dns(""),
        x509.IPAddress(ip_network("10.0.0.0/8")),
    ],
    ids=str,
)
def test_one_odd_name_hides_no_other(odd: x509.GeneralName) -> None:
    assert hostname_problem(certificate(odd, dns("localhost")), "localhost") is None


@pytest.mark.parametrize("host", ["a.com", "10.0.0.1", "10.0.0.0"])
def test_odd_names_match_nothing(host: str) -> None:
    odd = (dns("*.com"), dns("10.0.0.1"), x509.IPAddress(ip_network("10.0.0.0/8")))
    assert hostname_problem(certificate(*odd), host) is not None


def test_a_certificate_whose_extensions_cannot_be_decoded_is_valid_for_nothing() -> None:
    broken = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\xde\xad")
    cert = forge(mesh().issuing, replace={x509.BasicConstraints: (broken, True)})
    assert hostname_problem(cert, "localhost") is not None


def test_control_characters_are_escaped_in_what_is_said() -> None:
    problem = hostname_problem(certificate(dns("a\x1b[31m")), "b\r\n")
    assert problem is not None
    assert problem.detail.isprintable()


@given(st.text())
@example("\ud800")
@example("a" * 70_000)
@example("xn--\u0430")
def test_no_host_makes_it_raise(host: str) -> None:
    problem = hostname_problem(CERTIFICATE, host)
    assert problem is None or problem.detail.isprintable()


def test_matching_needs_no_reactor() -> None:
    check = "import sys, twisted_mesh.tls.hostname; sys.exit('twisted' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
