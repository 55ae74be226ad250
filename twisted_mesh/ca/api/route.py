"""One route of the API: who may ask, who answers, and the shapes of both sides."""

from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from types import UnionType
from typing import TypeAlias

import msgspec
from attrs import frozen

from pki.policy.policy import Action
from twisted_mesh.ca.api.admission import ProvingBody
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import JSON, Answer
from twisted_mesh.ca.parts import CaParts

Handler = Callable[[CaParts, Call], Awaitable[Answer]]
Shape: TypeAlias = str | type[msgspec.Struct] | UnionType
"""A struct of the API's or several, or the media type of what is none."""


@frozen
class Route:
    """One thing that can be asked for."""

    action: Action
    handler: Handler
    answer: Shape
    body: Shape | None = None
    """Of the request."""
    query: Collection[str] = ()
    """The parameters that it looks at."""
    status: HTTPStatus = HTTPStatus.OK
    rest: str = "id"
    """What stands in its path for the ``*``."""
    proving: type[ProvingBody] | None = None
    """What the body is where it may hold a proof of who asks."""
    is_deep: bool = False
    """Whether its ``*`` may have slashes in it."""

    @property
    def media(self) -> str:
        """What a body says that it is."""
        return self.body if isinstance(self.body, str) else JSON
