"""The API as an OpenAPI 3.1 document, made from the table of routes and the structs of its messages."""

from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args

import msgspec

from twisted_mesh.ca.api.response import JSON, PROBLEM_JSON
from twisted_mesh.ca.api.route import Route, Shape
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.http.json import ProblemDocument

_REF = "#/components/schemas/{name}"
Object = dict[str, Any]
"""An object of JSON."""


def openapi(version: str) -> Object:
    """The document, ready for JSON; ``version`` is this program's.

    Who may ask for what is no part of it: each operation has the name of its action, by which docs/SECURITY.md
    tells who may.
    """
    shapes = sorted({*_structs(), ProblemDocument}, key=str)
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_REF)
    refs = dict(zip(shapes, schemas, strict=True))
    paths: dict[str, Object] = {}
    for (method, path), route in ROUTES.items():
        named = path.replace("*", f"{{{route.rest}}}")
        paths.setdefault(named, {})[method.lower()] = _operation(path, route, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "The API of the mesh's CA", "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(path: str, route: Route, refs: dict[object, Object]) -> Object:
    parameters: list[Object] = [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query
    ]
    if "*" in path:
        rest = {"name": route.rest, "in": "path", "required": True, "schema": {"type": "string"}}
        parameters.insert(0, rest)
    operation: Object = {"tags": [str(route.action)], "parameters": parameters}
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body, refs)}
    operation["responses"] = {
        str(int(route.status)): {
            "description": route.status.phrase,
            "content": _content(route.answer, refs),
        },
        "default": {
            "description": "A refusal, with its reasons",
            "content": {PROBLEM_JSON: {"schema": refs[ProblemDocument]}},
        },
    }
    return operation


def _content(shape: Shape, refs: dict[object, Object]) -> Object:
    if isinstance(shape, str):
        return {shape: {}}
    members = [refs[member] for member in _members(shape)]
    return {JSON: {"schema": members[0] if len(members) == 1 else {"oneOf": members}}}


def _structs() -> Iterator[type[msgspec.Struct]]:
    for route in ROUTES.values():
        yield from _members(route.answer)
        if route.body is not None:
            yield from _members(route.body)


def _members(shape: Shape) -> tuple[type[msgspec.Struct], ...]:
    """The structs of which it is one; none where it is no JSON of ours."""
    if isinstance(shape, str):
        return ()
    return get_args(shape) if isinstance(shape, UnionType) else (shape,)
