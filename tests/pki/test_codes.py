"""The catalogue of codes: each is plain text wherever it is written, and says what to do."""

import json
import pickle
import re

import msgspec
import pytest

from pki.codes import Code
from pki.errors import Malformed, Problem


@pytest.mark.parametrize("code", Code)
def test_a_code_is_named_like_its_text(code: Code) -> None:
    assert code.name == code.value.upper().replace("-", "_")
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)


@pytest.mark.parametrize("code", Code)
def test_each_has_a_meaning_and_a_remedy_in_one_line(code: Code) -> None:
    for text in (code.meaning, code.remedy):
        assert text == text.strip()
        assert text.isprintable()
        assert not text.endswith(".")
        assert "|" not in text


def test_a_code_is_its_text_whatever_writes_it() -> None:
    code = Code.EXPIRED
    assert [str(code), f"{code}", "{}".format(code), "%s" % code] == ["expired"] * 4  # noqa: UP031, UP032
    assert json.dumps({code: code}) == '{"expired": "expired"}'
    assert msgspec.json.encode({"code": code}) == b'{"code":"expired"}'
    assert ", ".join((code, Code.REVOKED)) == "expired, revoked"


def test_a_code_is_its_text_in_sets_and_dictionaries() -> None:
    assert Code.EXPIRED in {"expired"}
    assert {Code.EXPIRED: 1}["expired"] == 1
    assert pickle.loads(pickle.dumps(Code.EXPIRED)) is Code.EXPIRED


@pytest.mark.parametrize("code", Code)
def test_a_code_is_found_by_its_text(code: Code) -> None:
    assert Code.parse(code.value) is code


@pytest.mark.parametrize("text", ["", "EXPIRED", "expired ", "of-another-version"])
def test_what_is_no_code_is_none(text: str) -> None:
    assert Code.parse(text) is None


def test_problems_and_errors_write_their_codes_as_text() -> None:
    assert str(Problem(Code.EXPIRED, "it ended", "renew it")) == "expired: it ended (renew it)"
    assert f"{Malformed('x').code}" == "malformed"
