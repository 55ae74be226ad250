"""A precertificate and its certificate have one serial: a signer signs one of each, and no others."""

import base64

import pytest
from attrs import evolve
from cryptography import x509

from pki.ct.entry import of_precertificate
from pki.ct.log_key import LogKey
from pki.ct.precertificate import with_poison, with_scts
from pki.ct.receipt import sign_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, milliseconds
from pki.der import SEQUENCE, element, elements
from pki.issuing.draft import Draft
from pki.issuing.rotation import ProofFailed, prove
from pki.keys import KeyAlgorithm, spki_der
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.policy import BadSigningPolicy, SigningPolicy
from pki.svid.bundle import TrustBundle
from tests.authorities import BACKEND, HOUR, MESH, NOW, key, mesh
from tests.pki.signing.conftest import Rig, done
from tests.pki.signing.test_certificate import forged

LOGS = [key("first log"), key("second log"), key("third log")]
KEYS = tuple(LogKey.of(log.public_key) for log in LOGS)
STRICT = SigningPolicy(MESH, log_keys=KEYS[:2], require_sct=2)


def draft(rig: Rig) -> Draft:
    return rig.issuing.draft(key(9).public_key, BACKEND, NOW, HOUR)


def shown(rig: Rig, made: Draft) -> x509.Certificate:
    return done(rig.issuing.sign(made.precertificate()))


def receipts(
    rig: Rig, made: Draft, *logs: int, at: int = milliseconds(NOW)
) -> list[SignedCertificateTimestamp]:
    """The precertificate signed, and what these logs answer."""
    entry = of_precertificate(shown(rig, made), rig.issuing.certificate)
    return [done(sign_sct(entry, at, 5, LOGS[log])) for log in logs]


def refused(rig: Rig, tbs: bytes, rule: str) -> SigningRefused:
    with pytest.raises(SigningRefused) as raised:
        rig.issuing_key.judge(tbs)
    assert raised.value.rule == rule, str(raised.value)
    return raised.value


def test_a_precertificate_and_then_its_certificate_are_signed(rig: Rig) -> None:
    made = draft(rig)
    scts = receipts(rig, made, 0, 1)
    issued = done(rig.issuing.sign(made.with_receipts(scts)))
    assert issued.serial_number == made.serial
    pre, final = rig.issuing_key.verdicts
    assert (pre.facts["stage"], final.facts["stage"]) == ("precertificate", "final")
    assert pre.facts["drafted"] == final.facts["drafted"]


def test_either_is_signed_again_as_it_was(rig: Rig) -> None:
    made = draft(rig)
    final = made.with_receipts(receipts(rig, made, 0))
    for again in (final, final, made.precertificate()):
        done(rig.issuing.sign(again))
    assert [verdict.effect is None for verdict in rig.issuing_key.verdicts] == [
        *(False, False),
        *(True, True),
    ]


def test_where_no_log_answered_the_certificate_may_be_without(rig: Rig) -> None:
    made = draft(rig)
    shown(rig, made)
    done(rig.issuing.sign(made))


def test_of_one_precertificate_there_is_one_certificate(rig: Rig) -> None:
    made = draft(rig)
    first, second = receipts(rig, made, 0, 1)
    done(rig.issuing.sign(made.with_receipts([first])))
    refused(rig, made.with_receipts([second]).tbs, "serial-reuse")
    refused(rig, made.tbs, "serial-reuse")


def test_the_certificate_is_that_of_its_precertificate(rig: Rig) -> None:
    made = draft(rig)
    scts = receipts(rig, made, 0, 1)
    other = forged(rig.issuing_key, rig.issuing.certificate.subject, serial=made.serial)
    refused(rig, with_scts(other, list_bytes(scts)), "precertificate")
    refused(rig, other, "precertificate")


def test_a_serial_has_one_precertificate(rig: Rig) -> None:
    made = draft(rig)
    shown(rig, made)
    other = forged(rig.issuing_key, rig.issuing.certificate.subject, serial=made.serial)
    refused(rig, with_poison(other), "serial-reuse")


def test_what_was_certified_without_is_shown_to_no_log_afterwards(rig: Rig) -> None:
    made = draft(rig)
    done(rig.issuing.sign(made))
    refused(rig, made.precertificate().tbs, "serial-reuse")


def test_a_certificate_with_scts_has_a_precertificate(rig: Rig) -> None:
    made = draft(rig)
    elsewhere = Rig()
    scts = receipts(elsewhere, draft(elsewhere), 0)
    refused(rig, made.with_receipts(scts).tbs, "precertificate")


def test_a_precertificate_is_judged_as_the_certificate_is(rig: Rig) -> None:
    issuer = rig.issuing.certificate.subject
    refused(rig, with_poison(forged(rig.issuing_key, issuer, ends=NOW + 1000 * HOUR)), "profile")
    other = forged(rig.issuing_key, issuer, begins=NOW - HOUR)
    refused(rig, with_poison(other), "clock")


def test_logs_are_shown_no_responder(rig: Rig) -> None:
    tbs = rig.issuing.draft_responder(key(9).public_key, NOW, HOUR).tbs
    refused(rig, with_poison(tbs), "profile")


@pytest.mark.parametrize("part", ["poison first", "an SCT cut short", "the list first"])
def test_what_is_not_written_as_we_would_is_not_signable(rig: Rig, part: str) -> None:
    made = draft(rig)
    scts = receipts(rig, made, 0)
    listed = list_bytes(scts)
    tbs = {
        "poison first": _first_is_last(made.precertificate().tbs),
        "an SCT cut short": with_scts(made.tbs, listed[:-1]),
        "the list first": _first_is_last(made.with_receipts(scts).tbs),
    }[part]
    with pytest.raises(NotSignable):
        rig.issuing_key.judge(tbs)


def _first_is_last(tbs: bytes) -> bytes:
    """The last extension before all others."""
    (outer,) = elements(tbs)
    *fields, wrapped = elements(outer.content)
    (listed,) = elements(wrapped.content)
    *others, last = (part.whole for part in elements(listed.content))
    extensions = element(SEQUENCE, last + b"".join(others))
    whole = [part.whole for part in fields] + [element(0xA3, extensions)]
    return element(SEQUENCE, b"".join(whole))


@pytest.fixture
def strict() -> Rig:
    return Rig(STRICT)


def test_a_policy_may_demand_that_logs_have_signed(strict: Rig) -> None:
    made = draft(strict)
    done(strict.issuing.sign(made.with_receipts(receipts(strict, made, 0, 1))))


def test_what_demands_it_signs_nothing_without(strict: Rig) -> None:
    made = draft(strict)
    refused(strict, made.tbs, "no-sct")
    scts = receipts(strict, made, 0, 1)
    for told, second in (
        ("SCTs of 1 logs", []),
        ("is not among the policy's log-keys", receipts(strict, made, 2)),
        ("is for something else", [evolve(scts[1], timestamp=scts[1].timestamp + 1)]),
        ("is for something else", receipts(strict, draft(strict), 1)),
    ):
        error = refused(strict, made.with_receipts([scts[0], *second]).tbs, "no-sct")
        assert told in str(error)
    ahead = receipts(strict, made, 0, 1, at=milliseconds(NOW + HOUR))
    assert "from the future" in str(refused(strict, made.with_receipts(ahead).tbs, "no-sct"))
    assert len(strict.issuing_key.verdicts) == 4, "precertificates, and nothing else"


def test_what_demands_it_signs_responders_and_lists_as_ever(strict: Rig) -> None:
    done(strict.issuing.create_responder(key(9), NOW, HOUR))


def test_a_new_issuing_ca_proves_itself_to_a_signer_that_demands_it(strict: Rig) -> None:
    bundle = TrustBundle(MESH, (strict.root.certificate,))
    done(prove(strict.issuing, bundle, NOW))
    (shown,) = strict.issuing_key.verdicts
    assert shown.facts["stage"] == "precertificate"
    other = TrustBundle(MESH, (mesh().root.certificate,))
    with pytest.raises(ProofFailed, match="unknown-authority"):
        done(prove(strict.issuing, other, NOW))


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P384, KeyAlgorithm.ED25519])
def test_a_log_has_a_key_of_a_kind_that_logs_have(algorithm: KeyAlgorithm) -> None:
    text = base64.b64encode(spki_der(key("odd log", algorithm).public_key)).decode()
    said = f'version = 1\ntrust-domain = "mesh.local"\nrequire-sct = 1\nlog-keys = ["{text}"]\n'
    with pytest.raises(BadSigningPolicy, match="log-keys: the key of a log is ECDSA P-256"):
        SigningPolicy.parse(said)
