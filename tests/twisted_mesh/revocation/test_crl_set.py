"""The CRLs beside an identity are the trust domain's own, complete for whoever checks a whole chain."""

import subprocess
from pathlib import Path

import pytest

from pki.errors import PkiError
from pki.keys import MemoryKey
from tests.twisted_mesh.revocation.published import HOUR, Publishing
from twisted_mesh.api.messages import IssuerCrl, PublishedCrls
from twisted_mesh.revocation.crl_set import CrlMissing, CrlSet, read_crls
from twisted_mesh.testing import MemoryCa, at_once


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


def read(
    publishing: Publishing, answer: PublishedCrls | None = None, earlier: CrlSet | None = None
) -> CrlSet:
    ca = publishing.ca
    svid = ca.issue("shop")
    answer = answer or publishing.answer()
    return read_crls(answer, ca.bundle, svid, publishing.clock.now(), earlier)


def test_openssl_checks_a_whole_chain_by_them(publishing: Publishing, tmp_path: Path) -> None:
    svid = publishing.ca.issue("shop")
    other = publishing.ca.issue("other")
    publishing.ca.revoke(other)
    found = read(publishing)
    (tmp_path / "crl.pem").write_bytes(found.to_pem())
    (tmp_path / "roots.pem").write_bytes(publishing.ca.bundle.to_pem())

    def verified(name: str, chain: bytes) -> str:
        (tmp_path / name).write_bytes(chain)
        done = subprocess.run(
            [
                *("openssl", "verify", "-crl_check_all", "-CAfile", tmp_path / "roots.pem"),
                *("-CRLfile", tmp_path / "crl.pem", "-untrusted", tmp_path / name),
                tmp_path / name,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert verified("shop", svid.chain_pem()).endswith("shop: OK\n")
    assert "certificate revoked" in verified("other", other.chain_pem())


def test_the_next_issuing_cas_is_among_them(publishing: Publishing) -> None:
    key = MemoryKey.generate(publishing.ca.issuing.key.algorithm)
    issuing = publishing.ca.root.create_issuing(
        key, publishing.ca.trust_domain, publishing.clock.now()
    )
    publishing.others.append(at_once(issuing))
    assert len(read(publishing).lists) == 3


@pytest.mark.parametrize("which", ["root", "issuing"])
def test_one_that_a_chain_needs_and_the_ca_has_not_is_told(
    publishing: Publishing, which: str
) -> None:
    publishing.left_out.append(getattr(publishing.ca, which))
    with pytest.raises(CrlMissing, match=f"the CA has no CRL of CN=mtls-mesh-{which}-ca"):
        read(publishing)


def test_other_trust_domains_lists_are_not_pooled(publishing: Publishing) -> None:
    stranger = Publishing(clock=publishing.clock)
    stranger.ca = MemoryCa(trust_domain="other.test", clock=publishing.clock)
    both = PublishedCrls([*publishing.answer().crls, *stranger.answer().crls])
    assert read(publishing, both).to_pem().count(b"BEGIN") == 2


def test_lists_of_a_root_of_the_same_name_and_another_key_are_passed_over(
    publishing: Publishing,
) -> None:
    stranger = Publishing(clock=publishing.clock)
    both = PublishedCrls([*publishing.answer().crls, *stranger.answer().crls])
    assert read(publishing, both).to_pem().count(b"BEGIN") == 2


def test_one_that_another_key_signed_is_refused(publishing: Publishing) -> None:
    stranger = Publishing(clock=publishing.clock)
    rows = [publishing.row(publishing.ca.root)]
    rows.append(publishing.row(publishing.ca.issuing, stranger.ca.issuing))
    with pytest.raises(PkiError, match="is not signed by the key of"):
        read(publishing, PublishedCrls(rows))


def test_an_older_one_does_not_replace_a_newer_one(publishing: Publishing) -> None:
    old, new = publishing.answer(), publishing.answer()
    earlier = read(publishing, new)
    with pytest.raises(PkiError, match="was seen before"):
        read(publishing, old, earlier)


def test_one_that_has_ended_is_refused(publishing: Publishing) -> None:
    answer = publishing.answer()
    publishing.clock.advance(2 * HOUR.total_seconds())
    with pytest.raises(PkiError, match="the next one was due"):
        read(publishing, answer)


@pytest.mark.parametrize(
    "row",
    [IssuerCrl("", b""), IssuerCrl("x", b"x"), IssuerCrl("-----BEGIN CERTIFICATE-----", b"")],
    ids=["empty", "letters", "half"],
)
def test_what_is_no_certificate_is_a_refusal(publishing: Publishing, row: IssuerCrl) -> None:
    with pytest.raises(PkiError):
        read(publishing, PublishedCrls([row]))


def test_they_lack_what_is_known_to_be_revoked_until_it_is_listed(publishing: Publishing) -> None:
    svid = publishing.ca.issue("other")
    before = read(publishing)
    publishing.ca.revoke(svid)
    revoked, now = publishing.ca.revoked, publishing.clock.now()
    assert before.lacks(revoked, now)
    assert not read(publishing).lacks(revoked, now)
    assert not before.lacks(revoked, now + 2 * HOUR)  # it has expired


def test_they_hold_until_the_first_of_them_ends(publishing: Publishing) -> None:
    expected = publishing.clock.now() + HOUR
    assert read(publishing).next_update == expected.replace(microsecond=0)
