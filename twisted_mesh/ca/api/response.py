"""What the CA's API answers with."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus

import msgspec
from attrs import evolve, field, frozen

from pki.codes import Code
from pki.errors import Problem
from pki.validity import rfc3339
from twisted_mesh.http.json import problem_body

JSON, PROBLEM_JSON = "application/json", "application/problem+json"


@frozen
class Answer:
    """One whole answer."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = JSON
    headers: Mapping[str, str] = field(factory=dict)
    """What else is said, by lower-case names."""
    is_by_date: bool = True
    """Whether its ``last-modified`` tells it from whatever was answered before."""

    def unless_held(self, etags: str | None, date: str | None) -> "Answer":
        """The answer to who holds what these headers say; one without a body where that is the same.

        ``If-None-Match`` and ``If-Modified-Since`` (RFC 9110 section 13).
        """
        if self.status != HTTPStatus.OK or not self._is_held(etags, date):
            return self
        return evolve(self, body=b"", status=HTTPStatus.NOT_MODIFIED)

    def _is_held(self, etags: str | None, date: str | None) -> bool:
        own, since = self.headers.get("etag"), self.headers.get("last-modified")
        if etags is not None:
            held = {tag.strip().removeprefix("W/") for tag in etags.split(",")}
            return own is not None and not held.isdisjoint({own, "*"})
        if date is None or since is None:
            return False
        held_at, made_at = _http_date(date), _http_date(since)
        if held_at is None or made_at is None:
            return False
        return held_at > made_at or (held_at == made_at and self.is_by_date)


def json_answer(message: msgspec.Struct, status: int = HTTPStatus.OK) -> Answer:
    """A struct of :mod:`twisted_mesh.api.messages` as JSON."""
    return Answer(msgspec.json.encode(message), status)


def problem_answer(
    status: int, code: Code, detail: str, problems: Sequence[Problem] = ()
) -> Answer:
    """A refusal as a problem document (RFC 9457)."""
    return Answer(problem_body(status, code, detail, problems), status, PROBLEM_JSON)


def optional_time(moment: datetime | None) -> str | None:
    """RFC 3339, or None."""
    return None if moment is None else rfc3339(moment)


def http_date(moment: datetime) -> str:
    """As HTTP writes it (RFC 9110 section 5.6.7)."""
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None
