"""A signer's policy is read whole or refused with all that is wrong with it."""

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.keys import spki_der
from pki.signing.policy import BadSigningPolicy, SigningPolicy
from pki.spiffe import SpiffePattern
from tests.authorities import BACKEND, MESH, OTHER, key

LOG = base64.b64encode(spki_der(key("first log").public_key)).decode()
PIN = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def test_all_that_a_policy_can_say() -> None:
    policy = SigningPolicy.parse(
        f"""
        version = 1
        trust-domain = "mesh.local"
        names = ["spiffe://mesh.local/service/**"]
        dns-names = ["localhost", "*.Mesh.local"]
        ip-addresses = false
        publication = ["https://ca.mesh.local/"]
        roots = ["{PIN}"]
        log-keys = ["{LOG}"]
        require-sct = 1
        max-cert-duration = "1h"
        max-responder-duration = "12h"
        max-issuing-duration = "30d"
        max-root-duration = "365d"
        max-crl-duration = "2h"
        max-root-crl-duration = "90d"
        clock-skew = "10s"
        max-keys = 8
        """
    )
    assert policy.trust_domain == MESH
    assert policy.names == (SpiffePattern.parse("spiffe://mesh.local/service/**"),)
    assert policy.dns_names == ("localhost", "*.mesh.local")
    assert (policy.ip_addresses, policy.publication) == (False, ("https://ca.mesh.local/",))
    assert [str(pin) for pin in policy.roots] == [PIN]
    assert ([str(log) for log in policy.log_keys], policy.require_sct) == ([LOG], 1)
    assert policy.max_cert_duration == timedelta(hours=1)
    assert policy.max_responder_duration == timedelta(hours=12)
    assert policy.max_issuing_duration == timedelta(days=30)
    assert policy.max_root_duration == timedelta(days=365)
    assert policy.max_crl_duration == timedelta(hours=2)
    assert policy.max_root_crl_duration == timedelta(days=90)
    assert (policy.clock_skew, policy.max_keys) == (timedelta(seconds=10), 8)


def test_the_least_that_it_must_say_is_the_default() -> None:
    text = 'version = 1\ntrust-domain = "mesh.local"\n'
    assert SigningPolicy.parse(text) == SigningPolicy(MESH)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1",
        'trust-domain = "mesh.local"',
        "[[",
        'version = 2\ntrust-domain = "mesh.local"',
        'version = 1\ntrust-domain = "spiffe://mesh.local/a"',
        'version = 1\ntrust-domain = "mesh.local"\nmax-cert-durations = "1h"',
        'version = 1\ntrust-domain = "mesh.local"\nmax-cert-duration = "1"',
        'version = 1\ntrust-domain = "mesh.local"\nnames = ["spiffe://other.example/**"]',
        'version = 1\ntrust-domain = "mesh.local"\nnames = ["mesh.local/**"]',
        'version = 1\ntrust-domain = "mesh.local"\nroots = ["sha256/AA"]',
        'version = 1\ntrust-domain = "mesh.local"\nlog-keys = ["AA=="]\nrequire-sct = 1',
        'version = 1\ntrust-domain = "mesh.local"\nrequire-sct = 1',
        'version = 1\ntrust-domain = "mesh.local"\nrequire-sct = -1',
        f'version = 1\ntrust-domain = "mesh.local"\nlog-keys = ["{LOG}"]',
        f'version = 1\ntrust-domain = "mesh.local"\nlog-keys = ["{LOG}", "{LOG}"]\nrequire-sct = 2',
        'version = 1\ntrust-domain = "mesh.local"\nmax-keys = 0',
        'version = 1\ntrust-domain = "mesh.local"\nmax-keys = true',
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(BadSigningPolicy):
        SigningPolicy.parse(text)


def test_all_is_told_at_once() -> None:
    text = 'version = 1\ntrust-domain = "mesh.local"\nmax-keys = 0\nclock-skew = "x"\nroots = ["y"]'
    with pytest.raises(BadSigningPolicy) as caught:
        SigningPolicy.parse(text)
    assert len(caught.value.problems) == 3


@given(text=st.text(st.characters(max_codepoint=0x3FF), max_size=200))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    with pytest.raises(BadSigningPolicy):
        SigningPolicy.parse(text)


def test_who_may_be_named() -> None:
    policy = SigningPolicy(MESH, names=(SpiffePattern.parse("spiffe://mesh.local/job/*"),))
    assert not policy.allows_id(BACKEND)
    assert policy.allows_id(MESH.member("job", "a"))
    assert not SigningPolicy(MESH).allows_id(OTHER.member("job", "a"))
