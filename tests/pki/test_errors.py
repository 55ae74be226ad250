"""Problems and errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError, Problem, Refused, printable


@given(st.text(), st.integers(1, 50))
def test_whatever_a_stranger_writes_becomes_one_printable_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    shown.encode()


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert printable("a\nb\x1b[2Jc") == r"a\nb\x1b[2Jc"
    assert printable("\u202egnp.exe") == r"\u202egnp.exe"
    assert printable("x" * 500) == "x" * 400 + "…"


def test_a_refusal_carries_and_tells_every_reason() -> None:
    problems = (Problem("a", "first", "do this"), Problem("b", "second"))
    error = Refused(iter(problems))
    assert error.problems == problems
    assert str(error) == "a: first (do this); b: second"


def test_a_refusal_without_a_reason_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="without a reason"):
        Refused([])


def test_an_error_is_a_problem_with_its_code() -> None:
    error: PkiError = Malformed("this is not it")
    assert error.problems == (Problem("malformed", "this is not it"),)
