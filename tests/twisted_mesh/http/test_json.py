"""JSON is what it seems, and a problem document says the same everywhere."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pki.errors import Problem
from twisted_mesh.http.json import BadRequest, parse_json, problem_body

# JSON.


class Shape(msgspec.Struct):
    name: str
    ttl: str | None = None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"name": "a"} x', "not JSON"),
        (b'{"name": "a", "name": "b"}', "twice"),
        (b'{"name": "a", "n\\u0061me": "b"}', "twice"),
        (b'{"name": "a", "other": {"x": 1, "x": 1}}', "twice"),
        (b'{"name": "a", "other": [{"x": [{"y": 1, "y": 2}]}]}', "twice"),
        (b'{"a":' * 30000 + b"1" + b"}" * 30000, "nested too deeply"),
        (b"[" * 60000, "nested too deeply"),
        (b'["name"]', "not an object"),
        (b'"name"', "not an object"),
        (b"1", "not an object"),
        (b"null", "not an object"),
        (b'{"name": "\xff"}', "not JSON"),
        (b'\xef\xbb\xbf{"name": "a"}', "not JSON"),
        ('{"name": "a"}'.encode("utf-16"), "not JSON"),
        (b'{"name": "a", "other": NaN}', "not JSON"),
        (b'{"name": "a", "other": -Infinity}', "not JSON"),
        (b'{"name": "a", "other": ' + b"9" * 10000 + b"}", "not JSON"),
        (b'{"name": "a\nb"}', "not JSON"),
        (b"{'name': 'a'}", "not JSON"),
        (b'{"name": 1}', "does not fit"),
        (b'{"name": "a", "ttl": 3600}', "does not fit"),
        (b"{}", "does not fit"),
    ],
)
def test_is_not_taken_for_json(body: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as refused:
        parse_json(body, Shape)
    assert refused.value.status == 400
    assert str(refused.value).isprintable()


def test_is_taken_for_json() -> None:
    parsed = parse_json(' {"name": "é\\u0000", "ttl": null, "more": [1e999, {}]}'.encode(), Shape)
    assert parsed == Shape("é\0")


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    body = json.dumps({"name": "[{" * 500, "more": [[]] * 500}).encode()
    assert parse_json(body, Shape).name == "[{" * 500


def lines_run(work: Callable[[], object]) -> Counter[str]:
    """How many lines of Python that takes, by the function that they are of."""
    lines: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        lines[frame.f_code.co_name] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def test_a_body_of_brackets_costs_little_more_than_to_read_it() -> None:
    body = b'{"name": "a", "more": [' + b",".join([b"{}"] * 15_000) + b"]}"
    lines = lines_run(lambda: parse_json(body, Shape))
    assert lines.pop("_unique") >= 15_000, "to read it is to look at each object's names"
    assert lines["_is_deep"], "it is looked at"
    assert lines.total() < 2_000, "and not one bracket after the other"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_every_json_object_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert parse_json(json.dumps(value).encode(), dict[str, Any]) == value


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda v: json.dumps(v).encode()))
@example(b'{"name":"\\ud800"}')
@example(b"[" * 100000)
@example(b'{"a":{"a":' * 20000)
def test_no_body_makes_the_parser_raise_anything_else(body: bytes) -> None:
    try:
        parsed = parse_json(body, Shape)
    except BadRequest as refused:
        assert str(refused).isprintable()
    else:
        assert isinstance(parsed.name, str)


# Problem documents.


def test_a_problem_document_says_the_same_in_every_place() -> None:
    problem = Problem("expired", "it ended", "renew it", "RFC 5280", "CN=a")
    document = json.loads(problem_body(422, "refused", "expired: it ended", [problem]))
    assert document == {
        "type": "about:blank",
        "title": HTTPStatus(422).phrase,  # "Unprocessable Entity", and from 3.13 on "Content"
        "status": 422,
        "code": "refused",
        "detail": "expired: it ended",
        "problems": [
            {
                "code": "expired",
                "detail": "it ended",
                "remedy": "renew it",
                "rule": "RFC 5280",
                "subject": "CN=a",
            }
        ],
    }


def test_a_problem_document_without_reasons_has_no_list_of_them() -> None:
    assert "problems" not in json.loads(problem_body(404, "not-found", "nothing here"))
