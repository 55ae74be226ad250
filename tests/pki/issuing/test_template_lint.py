"""The lints of what a template leaves open: each field broken, and named."""

from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from attrs import evolve

from pki.issuing.profile import BACKDATE, WORKLOAD
from pki.issuing.template import Template
from pki.issuing.template_lint import Filled, lint_template
from pki.keys import KeyAlgorithm, key_identifier, spki_der
from pki.svid.names import DNS_NAME, IP_ADDRESS, NAMELESS, URI, general_names, subject_der
from pki.validity import Validity
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, key, mesh, rsa_key

ISSUER = mesh().issuing
LOCAL = IPv4Address("127.0.0.1")
MADE = ISSUER.draft(
    key(9).public_key, BACKEND, NOW, HOUR, dns_names=["localhost"], ip_addresses=[LOCAL]
)
TEMPLATE = Template.cut(MADE.tbs)
FIELDS = TEMPLATE.read(MADE.tbs)
SECOND = timedelta(seconds=1)
GOOD = Filled(
    FIELDS,
    False,
    ISSUER.validity,
    WORKLOAD,
    NOW,
    key(9).public_key,
    spki_der(key(9).public_key),
    BACKEND,
    ["localhost"],
    [LOCAL],
)
START, END = FIELDS.validity.not_before, FIELDS.validity.not_after
OWN, HOST, ADDRESS = FIELDS.names


def broken(**changes: Any) -> set[str]:
    """What is said when the draft that is signed has other fields than were asked for."""
    tbs = TEMPLATE.fill(evolve(FIELDS, **changes))
    return said(evolve(GOOD, fields=TEMPLATE.read(tbs)))


def said(filled: Filled) -> set[str]:
    problems = lint_template(filled)
    assert all(problem.rule for problem in problems)
    assert all(
        problem.subject == str(filled.spiffe_id)
        for problem in problems
        if problem.code != "weak-key"
    )
    return {problem.detail for problem in problems}


def test_a_good_draft_breaks_no_rule() -> None:
    assert said(GOOD) == broken() == set()


@pytest.mark.parametrize("serial", [-1, 0, 2**63 - 1, 2**159])
def test_a_serial_out_of_range_is_told(serial: int) -> None:
    assert broken(serial=serial) == {"a serial is positive, of 64 or more bits and under 20 bytes"}


@pytest.mark.parametrize(
    ("start", "end", "detail"),
    [
        (NOW + SECOND, END, "the draft is not valid now"),
        (START, NOW - SECOND, "the draft is not valid now"),
        (START, NOW + DAY + 2 * SECOND, "the life is longer than the profile workload allows"),
    ],
)
def test_a_period_that_does_not_fit_is_told(start: Any, end: Any, detail: str) -> None:
    assert broken(validity=Validity(start, end)) == {detail}


def test_a_period_outside_the_issuers_is_told() -> None:
    assert broken(validity=Validity(START - SECOND, END)) == {
        "notBefore is earlier than the issuer's",
    }
    later = evolve(GOOD, issuers=Validity(START, END - SECOND))
    assert said(later) == {"notAfter is later than the issuer's"}
    early = evolve(GOOD, issuers=Validity(START - DAY, END))
    early = evolve(early, fields=evolve(FIELDS, validity=Validity(START - 2 * SECOND, END)))
    assert said(early) == {f"notBefore is more than {BACKDATE.seconds} s back"}


def test_a_subject_of_another_id_is_told() -> None:
    other = subject_der(MESH.member("service", "other"))
    assert broken(subject=other) == {"the subject is not the one that was granted"}


def test_an_empty_subject_goes_with_a_critical_name_and_no_other() -> None:
    rule = "the alternative name is critical exactly when the subject is empty"
    assert broken(subject=NAMELESS) == {"the subject is not the one that was granted", rule}
    assert said(evolve(GOOD, is_nameless=True)) == {rule}


def test_another_key_than_the_one_that_was_asked_for_is_told() -> None:
    other = spki_der(key(1).public_key)
    assert broken(spki=other) == {"the key is not the one to be certified"}


def test_a_key_identifier_of_another_key_is_told() -> None:
    other = key_identifier(spki_der(key(1).public_key))
    for identifier in (other, bytes(20)):
        assert broken(key_identifier=identifier) == {
            "the subject key identifier is not that of the key"
        }


def test_a_weak_key_is_told() -> None:
    weak = rsa_key(1024).public_key()
    spki = spki_der(weak)
    fields = evolve(FIELDS, spki=spki, key_identifier=key_identifier(spki))
    assert said(evolve(GOOD, fields=fields, public_key=weak, spki=spki)) == {
        "an RSA modulus has 2048 to 8192 bits in whole bytes, this one 1024"
    }


URI_DIFFERS = "the URI name is not the SPIFFE ID that was granted"


@pytest.mark.parametrize(
    ("uris", "details"),
    [
        ([], {"an SVID has exactly one URI name, this one 0"}),
        ([OWN, OWN], {"an SVID has exactly one URI name, this one 2"}),
        ([(URI, b"spiffe://mesh.local/service/other")], set()),
        (
            [(URI, b"spiffe://mesh.local")],
            {"spiffe://mesh.local names a trust domain: a workload's ID has a path"},
        ),
        (
            [(URI, b"https://mesh.local/")],
            {"'https://mesh.local/' is not a SPIFFE ID: it begins with spiffe://"},
        ),
    ],
)
def test_a_uri_that_is_not_the_one_id_is_told(uris: Any, details: set[str]) -> None:
    assert broken(names=(*uris, HOST, ADDRESS)) == details | {URI_DIFFERS}


DNS_DIFFERS = "the DNS names are not those that were granted"
IP_DIFFERS = "the IP addresses are not those that were granted"


@pytest.mark.parametrize(
    ("names", "details"),
    [
        ((OWN, ADDRESS), {DNS_DIFFERS}),
        ((OWN, HOST), {IP_DIFFERS}),
        ((OWN, HOST, HOST, ADDRESS), {DNS_DIFFERS}),
        ((OWN, (DNS_NAME, b"Localhost"), ADDRESS), {DNS_DIFFERS}),
        ((OWN, HOST, (IP_ADDRESS, bytes(4))), {IP_DIFFERS}),
        ((OWN, HOST, (IP_ADDRESS, LOCAL.packed + bytes(12))), {IP_DIFFERS}),
        (
            (OWN, HOST, ADDRESS, (0x81, b"root@mesh.local")),
            {"an alternative name is of another kind"},
        ),
    ],
)
def test_host_names_that_were_not_granted_are_told(names: Any, details: set[str]) -> None:
    assert broken(names=names) == details


def test_an_id_without_a_path_is_told() -> None:
    names = general_names(MESH.id, ["localhost"], [LOCAL])
    fields = evolve(FIELDS, names=names, subject=subject_der(MESH.id))
    found = said(evolve(GOOD, fields=fields, spiffe_id=MESH.id, is_nameless=True))
    assert found == {"spiffe://mesh.local names a trust domain: a workload's ID has a path"}


def test_everything_that_is_broken_is_told_at_once() -> None:
    weak = KeyAlgorithm.EC_P384
    found = broken(serial=1, subject=NAMELESS, spki=spki_der(key(1, weak).public_key), names=())
    assert len(found) == 8
