"""What the CA's API answers with."""

from http import HTTPStatus
from typing import Any

import msgspec
from attrs import frozen


@frozen
class Answer:
    """One whole answer."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = "application/json"


def told(facts: Any, status: int = HTTPStatus.OK) -> Answer:
    """``facts`` as JSON."""
    return Answer(msgspec.json.encode(facts), status)
