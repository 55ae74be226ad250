"""Whatever is wrong with what is shown: no traceback, in time, and nothing that was not judged is a no."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from functools import cache

import pytest
from click import unstyle
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.crl.issue import issue_crl
from pki.der import ANSWER, CERTIFICATE, CRL, REQUEST, element, pem
from pki.errors import Malformed
from pki.inspect.describe import describe
from pki.inspect.description import Description
from pki.ocsp.sign import Responder, SingleResponse
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, NOW, csr_builder, forge, key, mesh
from tests.pki.inspect.damaging import Change, Tree, changed, damaged, parse, places
from tests.pki.inspect.oddities import (
    ID,
    ODDITIES,
    Oddity,
    alternative_names,
    certificate,
    crl,
    oid,
    request,
    seq,
)
from tests.pki.inspect.test_extensions import CASES
from twisted_mesh.cli.inspect_output import losses, shown_json, shown_text


@cache
def specimens() -> tuple[tuple[str, bytes], ...]:
    """One of each kind that is shown, with as much in it as there can be."""
    issuing = mesh().issuing
    revoked = [Revocation(issuing.key_id, n, NOW, Reason.SUPERSEDED, NOW + HOUR) for n in (1, 2, 3)]
    crl = asyncio.run(issue_crl(issuing, revoked, 7, this_update=NOW, next_update=NOW + HOUR))
    delegate = asyncio.run(issuing.create_responder(key("responder"), NOW))
    responder = Responder(issuing.certificate, key("responder"), delegate)
    told = [
        SingleResponse(responder.identity.cert_id(one.serial), one, NOW, NOW + HOUR)
        for one in revoked
    ]
    answer = asyncio.run(responder.respond(told, produced_at=NOW, nonce=b"ab"))
    rich = forge(issuing, replace={type(value): (value, False) for value, _, _ in CASES})
    request = csr_builder().sign(key().private_key, key().algorithm.hash)
    return (
        (CERTIFICATE, rich.public_bytes(Encoding.DER)),
        (CERTIFICATE, mesh().root.certificate.public_bytes(Encoding.DER)),
        (REQUEST, request.public_bytes(Encoding.DER)),
        (CRL, crl),
        (ANSWER, answer),
    )


def texts(value: object) -> Iterator[str]:
    """Every text in what was read from JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def look(data: bytes) -> tuple[Description, ...]:
    """Described and printed both ways; empty where it is refused in a sentence."""
    try:
        found = describe(data, NOW)
    except Malformed as error:
        assert str(error).isprintable()
        return ()
    named = [("x", item) for item in found]
    assert shown_text(named)
    assert all(text.isprintable() for text in texts(json.loads(shown_json(named))))
    lost = any(item.unreadable for item in found)
    assert bool(losses("x", found)) is lost
    return found


@settings(deadline=timedelta(seconds=20))  # of a busy machine; it takes milliseconds
@given(st.data())
def test_damage_along_the_structure_is_shown_or_refused_in_a_sentence(data: st.DataObject) -> None:
    label, der = data.draw(st.sampled_from(specimens()))
    hurt = data.draw(damaged((der,)))
    look(hurt)
    look(pem(label, hurt))
    look(pem(label, hurt + b"\x05\0"))
    for item in look(pem(label, hurt) + pem(*specimens()[2])):
        assert item.is_shown or item.unreadable


@pytest.mark.parametrize("oddity", ODDITIES.values(), ids=ODDITIES)
def test_what_is_odd_is_shown_with_a_remark(oddity: Oddity) -> None:
    (shown,) = look(oddity.pem)
    text = unstyle(shown_text([("x", shown)]))
    for fact in oddity.shows:
        assert fact in text
    assert any(oddity.remark in remark for remark in shown.remarks) or not oddity.remark
    assert bool(shown.remarks) is bool(oddity.remark)
    assert bool(shown.unreadable) is not oddity.is_whole
    assert look(oddity.der)[0].subject == shown.subject


#: Cut out, doubled, emptied, or of another kind.
_CHANGES: tuple[Change, ...] = (
    lambda _: (),
    lambda part: (part, part),
    lambda part: (Tree(part.tag),),
    lambda part: (Tree(part.tag ^ 0x1F, part.content, part.parts, part.prefix),),
)


def test_each_element_can_be_cut_out_emptied_or_doubled() -> None:
    """At each place of each kind, one after the other."""
    for label, der in specimens():
        tree = parse(der)
        for number, way in enumerate(places(tree)):
            change = _CHANGES[number % len(_CHANGES)]
            look(pem(label, changed(tree, way, change).encode()))


@pytest.mark.soak
def test_each_element_can_be_damaged_in_every_way() -> None:
    for label, der in specimens():
        tree = parse(der)
        for way in places(tree):
            for change in _CHANGES:
                hurt = changed(tree, way, change).encode()
                look(hurt)
                look(pem(label, hurt) + pem(label, der))


def described(der: bytes, label: str = CERTIFICATE) -> Description:
    (shown,) = describe(pem(label, der), NOW)
    return shown


def test_what_cannot_be_known_is_not_told_as_no() -> None:
    constraints = described(ODDITIES["damaged constraints"].der)
    assert (constraints.is_ca, constraints.spiffe_ids) == (None, (ID,))
    named = described(ODDITIES["damaged names"].der)
    assert (named.is_ca, named.spiffe_ids) == (False, None)
    text = unstyle(shown_text([("x", constraints), ("x", named)]))
    assert "CA                cannot be read (its DER is damaged" in text
    assert "SPIFFE ID         cannot be read (its DER is damaged" in text
    (of_constraints, of_names) = json.loads(shown_json([("x", constraints), ("x", named)]))
    assert (of_constraints["is_ca"], of_names["spiffe_ids"]) == (None, None)
    assert of_constraints["damaged"] and of_names["damaged"]
    lost = described(certificate(extensions=(b"\x30\x7f\0",)))
    assert (lost.is_ca, lost.spiffe_ids) == (None, None)


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        ("1.2.840.113549.1.1.5", "a signature over SHA-1 proves nothing"),
        ("1.2.840.113549.1.1.4", "a signature over MD5 proves nothing"),
        ("1.2.840.10045.4.1", "a signature over SHA-1 proves nothing"),
        ("1.2.3.4", "the algorithm 1.2.3.4 is not known here"),
        ("1.2.156.10197.1.501", "the algorithm SM2 with SM3 is not known here"),
        ("1.2.840.113549.1.1.10", "a signature over SHA-1 proves nothing"),
    ],
)
def test_a_signature_that_is_not_checked_is_not_told_as_bad(algorithm: str, said: str) -> None:
    for made, label in ((certificate, CERTIFICATE), (request, REQUEST)):
        shown = described(made(algorithm=seq(oid(algorithm))), label)  # type: ignore[operator]
        assert (shown.signed_by_itself, shown.not_checked) == (None, said)
        text = shown_text([("x", shown)])
        assert f"not checked: {said}" in text
        assert "failed" not in text
        assert "another key" not in text
        (encoded,) = json.loads(shown_json([("x", shown)]))
        assert (encoded["signed_by_itself"], encoded["not_checked"]) == (None, said)


@pytest.mark.parametrize(
    ("algorithm", "holds"),
    [("1.2.840.113549.1.1.11", False), ("2.16.840.1.101.3.4.3.2", False), ("1.3.101.112", False)],
)
def test_a_signature_of_another_kind_of_key_is_none_of_this_one(
    algorithm: str, holds: bool
) -> None:
    assert described(certificate(algorithm=seq(oid(algorithm)))).signed_by_itself is holds


def test_a_bad_block_hides_none_beside_it() -> None:
    good, bad = pem(CERTIFICATE, certificate()), pem(CERTIFICATE, b"\x30\0")
    first, second, third = describe(good + bad + good, NOW)
    assert first.is_shown and third.is_shown and not second.is_shown
    (why,) = second.unreadable
    assert why == "a certificate in it cannot be decoded: it is an empty SEQUENCE, at byte 0"
    for hurt in (
        b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n",
    ):
        assert [item.is_shown for item in describe(good + hurt + good, NOW)] == [True, False, True]
    assert [item.is_shown for item in describe(certificate() * 2, NOW)] == [True, True]


@pytest.mark.parametrize("label", [CERTIFICATE, REQUEST, CRL, ANSWER])
@pytest.mark.parametrize(
    "der",
    [b"", b"\x30\0", b"\x30\0\x30\0", b"\x30", b"\x30\x80", b"\x05\0", b"\x30\2\x30\0", b"\xff"],
)
def test_a_block_with_next_to_nothing_in_it_is_refused_in_a_sentence(
    label: str, der: bytes
) -> None:
    with pytest.raises(Malformed, match="cannot be decoded: "):
        describe(pem(label, der), NOW)


def test_of_very_many_damaged_parts_no_more_is_told_than_anybody_reads() -> None:
    """Else 10 MB of two bytes each would be told in gigabytes."""
    many = 3000
    for der, label in (
        (certificate(extensions=(b"\x30\0",) * many), CERTIFICATE),
        (crl(b"\x30\0" * many), CRL),
        (
            certificate(extensions=(alternative_names(*[element(0x82, b"\xff")] * many),)),
            CERTIFICATE,
        ),
    ):
        (shown,) = look(pem(label, der))
        assert len(shown.remarks) <= 1001
        assert len(shown.unreadable) <= 1000
        assert len(shown.extensions) <= 1001
