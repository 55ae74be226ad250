"""What CRLs and OCSP responses say, in words."""

import asyncio
import contextlib

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.crl.issue import issue_crl
from pki.errors import Malformed, PkiError
from pki.inspect.crl_ocsp_facts import answer_statement, crl_statement
from pki.ocsp.sign import (
    ErrorStatus,
    Responder,
    SingleResponse,
    Standing,
    error_response,
)
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, NOW, key, mesh, sign_crl
from tests.pki.strategies import mutated

CA = mesh().issuing
REVOKED = Revocation(CA.key_id, 5, NOW - HOUR, Reason.KEY_COMPROMISE, NOW + HOUR)
DELEGATE = asyncio.run(CA.create_responder(key("responder"), NOW))
CRL = asyncio.run(issue_crl(CA, [REVOKED], 7, this_update=NOW, next_update=NOW + HOUR))


def answer(*, by_name: bool = False, standing: Standing | Revocation = REVOKED) -> bytes:
    responder = Responder(CA.certificate, key("responder"), DELEGATE, by_name)
    told = SingleResponse(responder.identity.cert_id(5), standing, NOW, NOW + HOUR)
    return asyncio.run(responder.respond([told], produced_at=NOW, nonce=b"ab"))


def test_a_crl_says_who_is_revoked_since_when_and_why() -> None:
    facts = dict(crl_statement(CRL).facts)
    digest = facts.pop("sha256")
    assert len(digest[0]) == 95
    assert facts == {
        "issuer": ("CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local",),
        "number": ("7",),
        "this_update": ("2026-11-23T10:00:00Z",),
        "next_update": ("2026-11-23T11:00:00Z",),
        "signature": ("ECDSA with SHA-256",),
        "entries": ("1",),
        "revoked": ("05 since 2026-11-23T09:00:00Z (keyCompromise)",),
    }
    identifier, number = crl_statement(CRL).extensions
    assert (identifier.name, number.name) == ("authorityKeyIdentifier", "cRLNumber")
    assert number.values == ("7",)


def test_what_a_crl_limits_itself_to_is_told() -> None:
    scope = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    said = crl_statement(sign_crl(CA, (scope, True), serials=(), number=None))
    facts = dict(said.facts)
    assert facts["entries"] == ("0",)
    assert "revoked" not in facts
    assert "number" not in facts
    assert [(e.name, e.critical, e.values) for e in said.extensions[1:]] == [
        ("issuingDistributionPoint", True, ("only certificates of users",))
    ]


def test_an_answer_says_how_certificates_stand() -> None:
    facts = dict(answer_statement(answer()).facts)
    facts.pop("sha256")
    (responder,) = facts.pop("responder")
    (issuer,) = facts.pop("issuers")
    assert issuer.startswith("SHA-256 of name ")
    assert responder.startswith("key ")
    assert facts == {
        "status": ("successful",),
        "produced_at": ("2026-11-23T10:00:00Z",),
        "answers": (
            "05 is revoked since 2026-11-23T09:00:00Z (keyCompromise), "
            "from 2026-11-23T10:00:00Z until 2026-11-23T11:00:00Z",
        ),
        "nonce": ("61:62",),
        "signature": ("ECDSA with SHA-256",),
        "certificates": ("CN=mtls-mesh-ocsp-responder,OU=generation 1,O=mesh.local",),
    }
    named = dict(answer_statement(answer(by_name=True, standing=Standing.GOOD)).facts)
    assert named["responder"] == named["certificates"]
    assert named["answers"][0].startswith("05 is good, from")


def test_an_error_says_which() -> None:
    facts = dict(answer_statement(error_response(ErrorStatus.TRY_LATER)).facts)
    assert facts["status"] == ("try later",)
    assert set(facts) == {"status", "sha256"}


@pytest.mark.parametrize("read", [crl_statement, answer_statement])
def test_damage_is_malformed(read: object) -> None:
    for data in (CRL[:-1], answer()[:-1], b""):
        with pytest.raises(Malformed, match=r"damaged or cut short|nothing in it"):
            read(data)  # type: ignore[operator]


@given(st.one_of(st.binary(), mutated(CRL), mutated(answer())))
def test_bytes_break_only_as_malformed_and_texts_are_printable(data: bytes) -> None:
    for read in (crl_statement, answer_statement):
        with contextlib.suppress(PkiError):
            assert all(value.isprintable() for _, values in read(data).facts for value in values)


def test_an_answer_of_another_kind_says_at_least_that() -> None:
    basic = bytes.fromhex("06092b0601050507300101")
    other = answer().replace(basic, basic[:-1] + b"\x02", 1)
    said = answer_statement(other)
    assert dict(said.facts)["status"] == ("successful",)
    (lost,) = said.unreadable
    assert "its kind of response, 1.3.6.1.5.5.7.48.1.2, is not known here" in lost
