"""Answers that the caller may have already."""

from datetime import timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.authorities import HOUR, NOW
from twisted_mesh.ca.api.response import Answer, http_date

ANSWER = Answer(b"body", headers={"etag": '"7"', "last-modified": http_date(NOW)})
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("etags", "is_held"),
    [
        ('"7"', True),
        ('W/"7"', True),
        ('"6", "7"', True),
        ("*", True),
        ('"6"', False),
        ("7", False),
        ("", False),
    ],
)
def test_who_names_it_has_it(etags: str, is_held: bool) -> None:
    reply = ANSWER.unless_held(etags, None)
    assert reply == (evolve(ANSWER, body=b"", status=304) if is_held else ANSWER)
    # The date does not count then.
    assert ANSWER.unless_held(etags, http_date(NOW + HOUR)) == reply


@pytest.mark.parametrize(
    ("date", "is_held"),
    [
        (http_date(NOW), True),
        (http_date(NOW + SECOND), True),
        (http_date(NOW - SECOND), False),
        ("Sunday, 06-Nov-94 08:49:37 GMT", False),
        ("nonsense", False),
        ("", False),
        ("99999999", False),
    ],
)
def test_who_has_one_as_new_has_it(date: str, is_held: bool) -> None:
    assert ANSWER.unless_held(None, date).status == (304 if is_held else 200)


def test_two_of_one_second_are_told_apart_by_their_tags_only() -> None:
    second = evolve(ANSWER, is_by_date=False)
    assert second.unless_held(None, http_date(NOW)).status == 200
    assert second.unless_held(None, http_date(NOW + SECOND)).status == 304
    assert second.unless_held('"7"', http_date(NOW)).status == 304


def test_what_has_no_tag_and_no_date_is_always_given() -> None:
    assert Answer(b"").unless_held("*", http_date(NOW + HOUR)).status == 200
    refused = evolve(ANSWER, status=503)
    assert refused.unless_held("*", None) is refused


@given(st.text(), st.text())
def test_no_headers_make_it_raise(etags: str, date: str) -> None:
    ANSWER.unless_held(etags, date)
    ANSWER.unless_held(None, date)
