"""What HTTP carries here: JSON that is what it seems, and problem documents."""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from itertools import accumulate
from typing import NoReturn, TypeVar

import msgspec

from pki.codes import Code
from pki.errors import PkiError, Problem, discreet, printable

T = TypeVar("T")

#: The media type of a problem document.
PROBLEM_TYPE = "application/problem+json"
_MAX_DEPTH = 32
#: A string, or one that never ends: it always matches, so that no body makes it look twice.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
#: Half of a pair as an escape, or what looks like one; without it there is none, since UTF-8 has none.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
#: Brackets as steps down and up, and all that is none.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class BadRequest(PkiError):
    """The request cannot be used; ``status`` is the answer."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status = status
        super().__init__(detail)


class ProblemDocument(msgspec.Struct, frozen=True):
    """What a refusal says (RFC 9457), with a ``code`` that stays the same."""

    type: str
    title: str
    status: int
    code: Code
    detail: str
    problems: list[Problem] | msgspec.UnsetType = msgspec.UNSET
    """Every reason, where they are known."""


def problem_body(status: int, code: Code, detail: str, problems: Sequence[Problem] = ()) -> bytes:
    """A :class:`ProblemDocument` as JSON."""
    title = HTTPStatus(status).phrase
    reasons = list(problems) or msgspec.UNSET
    return msgspec.json.encode(ProblemDocument("about:blank", title, status, code, detail, reasons))


def read_problem(body: bytes) -> Problem | None:
    """What a problem document says, in one line that is safe to show; None where it is none with a code of ours."""
    try:
        document = json.loads(body)
        code, detail = Code.parse(str(document["code"])), printable(str(document["detail"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return None if code is None else Problem(code, detail)


def parse_json(body: bytes, shape: type[T]) -> T:
    """``body`` as a ``shape``. Raises :class:`BadRequest`, also for duplicate keys and deep nesting."""
    brackets = body.count(b"{") + body.count(b"[")
    if brackets > _MAX_DEPTH and _is_deep(body):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the body is not JSON: it is nested too deeply")
    try:
        decoded = _JSON.decode(body.decode("utf-8"))
    except ValueError as error:
        raise BadRequest(
            HTTPStatus.BAD_REQUEST, f"the body is not JSON: {discreet(str(error), 200)}"
        ) from None
    if _SURROGATE.search(body) and _has_half_a_pair(decoded):
        raise BadRequest(
            HTTPStatus.BAD_REQUEST, "the body is not JSON: it holds half of a surrogate pair"
        )
    if not isinstance(decoded, dict):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the body is JSON, but not an object")
    try:
        return msgspec.convert(decoded, type=shape)
    except msgspec.ValidationError as error:
        raise BadRequest(
            HTTPStatus.BAD_REQUEST, f"the body does not fit: {discreet(str(error), 200)}"
        ) from None


def _is_deep(body: bytes) -> bool:
    """Whether arrays and objects are nested beyond reason. Python's own limit differs by version."""
    # Not one by one: a stranger's body may be nothing else.
    steps = memoryview(_STRING.sub(b"", body).translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0) > _MAX_DEPTH


def _has_half_a_pair(decoded: object) -> bool:
    """Whether a string in it is none that could be written down (RFC 8259 section 8.2)."""
    try:
        json.dumps(decoded, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
