"""What a strict reader refuses is read where it is harmless, and else refused by its rule, with what to do."""

import re

import pytest

from pki.der import pem
from pki.errors import PkiError
from pki.issuing.csr import IssuanceRequest
from pki.keys import spki_der
from pki.pem import REQUEST
from tests.authorities import BACKEND, MESH, key
from tests.pki.issuing.odd_csrs import GRANTED, REFUSED


def parse(der: bytes) -> IssuanceRequest:
    return IssuanceRequest.parse(pem(REQUEST, der), str(BACKEND), trust_domain=MESH)


@pytest.mark.parametrize("kind", GRANTED)
def test_what_is_harmless_is_read(kind: str) -> None:
    request = parse(GRANTED[kind].der())
    assert spki_der(request.public_key) == spki_der(key().public_key)
    assert request.subject.isprintable()
    assert set(request.dns_names) <= {"localhost"}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_so_by_its_rule_and_told_what_to_do(kind: str) -> None:
    made, code, words = REFUSED[kind]
    with pytest.raises(PkiError) as refused:
        parse(made().der())
    assert code in [problem.code for problem in refused.value.problems]
    assert re.search(words, str(refused.value)), str(refused.value)
    assert "damaged" not in str(refused.value)
