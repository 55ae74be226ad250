"""What becomes of a draft that logs are shown: a precertificate, then a certificate with what they answered."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.entry import of_precertificate, signed_entry_of
from pki.ct.errors import BadSct
from pki.ct.log_key import LogKey
from pki.ct.precertificate import with_poison, with_scts, without_poison, without_scts
from pki.ct.receipt import sign_sct, verify_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, milliseconds, scts_of
from pki.errors import Malformed
from pki.issuing.draft import Draft
from pki.issuing.lint import LintFailed
from pki.issuing.logged_lint import lint_final, lint_precertificate
from pki.issuing.publication import Publication
from pki.keys import KeyAlgorithm
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose
from tests.authorities import BACKEND, HOUR, NOW, key, mesh

ISSUER = mesh().issuing
LOGS = [key("first log"), key("second log")]
DRAFT = ISSUER.draft(key(9).public_key, BACKEND, NOW, HOUR)


def signed(draft: Draft) -> x509.Certificate:
    return asyncio.run(ISSUER.sign(draft))


def receipts(draft: Draft, at: datetime = NOW) -> tuple[SignedCertificateTimestamp, ...]:
    """What two logs answer."""
    entry = of_precertificate(signed(draft.precertificate()), ISSUER.certificate)
    return tuple(
        asyncio.run(sign_sct(entry, milliseconds(at), index, log))
        for index, log in enumerate(LOGS, 7)
    )


SCTS = receipts(DRAFT)


def said(problems: Sequence[object]) -> str:
    return "; ".join(map(str, problems))


@pytest.mark.parametrize("common_name", ["", "backend.example"])
@pytest.mark.parametrize("publication", [None, Publication("http://ca.example/crl")])
def test_only_what_logs_have_to_do_with_differs(
    common_name: str, publication: Publication | None
) -> None:
    issuer = evolve(ISSUER, workload=evolve(ISSUER.workload, publication=publication))
    draft = issuer.draft(key(9).public_key, BACKEND, NOW, HOUR, common_name=common_name)
    pre, final = draft.precertificate(), draft.with_receipts(SCTS)
    assert without_poison(pre.tbs) == draft.tbs == without_scts(final.tbs)
    shown, issued = (asyncio.run(issuer.sign(made)) for made in (pre, final))
    assert shown.serial_number == issued.serial_number == draft.serial
    assert (
        list(shown.extensions)[:-1] == list(issued.extensions)[:-1] == [*draft.unsigned.extensions]
    )
    assert shown.extensions.get_extension_for_class(x509.PrecertPoison).critical
    listed = issued.extensions.get_extension_for_class(
        x509.PrecertificateSignedCertificateTimestamps
    )
    assert [one.log_id for one in listed.value] == [one.log_id for one in SCTS]
    assert not listed.critical


def test_what_logs_sign_is_what_is_issued_in_the_end() -> None:
    issued = signed(DRAFT.with_receipts(SCTS))
    assert scts_of(issued) == SCTS
    entry = signed_entry_of(issued, ISSUER.certificate)
    for sct, log in zip(SCTS, LOGS, strict=True):
        verify_sct(sct, entry, LogKey.of(log.public_key))


def test_a_peer_believes_the_certificate_and_no_precertificate() -> None:
    for made, is_believed in ((DRAFT.with_receipts(SCTS), True), (DRAFT.precertificate(), False)):
        chain = (signed(made), *ISSUER.intermediates)
        verdict = judge(chain, mesh().bundles, RevocationSet(), now=NOW, purpose=Purpose.ANY)
        assert verdict.ok is is_believed, said(verdict.problems)


def test_a_certificate_without_receipts_is_no_logged_one() -> None:
    with pytest.raises(BadSct, match="not 0"):
        DRAFT.with_receipts([])


def test_two_receipts_of_one_log_are_not_put_into_one_certificate() -> None:
    with pytest.raises(LintFailed, match="two SCTs are of one log"):
        DRAFT.with_receipts([SCTS[0], SCTS[0]])


def test_an_ocsp_responder_is_shown_to_no_log() -> None:
    draft = ISSUER.draft_responder(key(9).public_key, NOW)
    for work in (draft.precertificate, lambda: draft.with_receipts(SCTS)):
        with pytest.raises(LintFailed, match="ocsp-responder is not shown to logs"):
            work()


def test_a_ca_is_shown_to_no_log() -> None:
    draft = mesh().root.draft_issuing(key(8).public_key, mesh().trust_domain, NOW)
    with pytest.raises(LintFailed, match="issuing is not shown to logs"):
        draft.precertificate()


def test_a_draft_of_either_kind_is_made_of_the_bare_one_only() -> None:
    pre, final = DRAFT.precertificate(), DRAFT.with_receipts(SCTS)
    for made in (pre, final):
        with pytest.raises(Malformed):
            made.precertificate()
        with pytest.raises(Malformed):
            made.with_receipts(SCTS)


def other() -> Draft:
    """A draft for the same workload, and another serial."""
    return ISSUER.draft(key(9).public_key, BACKEND, NOW, HOUR)


BROKEN = {
    "more than the poison": (lint_precertificate, lambda: with_poison(other().tbs), ()),
    "not the poison, critical": (lint_precertificate, lambda: DRAFT.with_receipts(SCTS).tbs, ()),
    "not the list of SCTs": (lint_final, lambda: DRAFT.precertificate().tbs, SCTS),
    "more than the SCTs differs": (
        lint_final,
        lambda: with_scts(other().tbs, list_bytes(SCTS)),
        SCTS,
    ),
    "does not have the SCTs that were obtained": (
        lint_final,
        lambda: with_scts(DRAFT.tbs, list_bytes(SCTS[:1])),
        SCTS,
    ),
    "are not those that were obtained": (
        lint_final,
        lambda: with_scts(DRAFT.tbs, list_bytes([evolve(SCTS[0], timestamp=1), SCTS[1]])),
        SCTS,
    ),
    "cannot be decoded": (lint_final, lambda: DRAFT.tbs[:-1], SCTS),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_is_not_made_as_it_should_be_is_not_signed(rule: str) -> None:
    lint, made, scts = BROKEN[rule]
    found = lint(made(), DRAFT, scts) if lint is lint_final else lint(made(), DRAFT)  # type: ignore[operator]
    assert rule in said(found)


@given(
    st.binary(min_size=1, max_size=80),
    st.integers(0, 2**40 - 1),
    st.sampled_from([KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048]),
)
def test_whatever_a_log_signs_with_the_certificate_can_be_read(
    signature: bytes, at: int, algorithm: KeyAlgorithm
) -> None:
    number = 3 if algorithm is KeyAlgorithm.EC_P256 else 1
    sct = evolve(SCTS[0], signature=signature, timestamp=at, signature_algorithm=number)
    made = DRAFT.with_receipts([sct]).unsigned
    assert scts_of(made) == (sct,)
    oid = ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS
    assert len(made.extensions.get_extension_for_oid(oid).value) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithms", [(9, 3), (4, 9), (0, 0)])
def test_a_receipt_that_other_readers_would_choke_on_comes_into_no_certificate(
    algorithms: tuple[int, int],
) -> None:
    digest, signer = algorithms
    odd = evolve(SCTS[0], hash_algorithm=digest, signature_algorithm=signer)
    with pytest.raises(LintFailed, match="cannot be decoded"):
        DRAFT.with_receipts([odd])
