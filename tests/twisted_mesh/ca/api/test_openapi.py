"""The OpenAPI document: every route, every message, and references that lead somewhere."""

import json
import re
from typing import Any

import msgspec

from twisted_mesh.ca.api.openapi import openapi
from twisted_mesh.ca.api.routes import ROUTES

DOCUMENT = openapi("1.2.3")


def test_every_route_is_in_it() -> None:
    told = {
        (method.upper(), re.sub(r"\{[a-z]+\}", "*", path))
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert told == ROUTES.keys()


def test_it_says_what_it_is() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert json.loads(msgspec.json.encode(DOCUMENT)) == DOCUMENT


def test_every_reference_leads_to_a_schema_and_none_is_there_for_nothing() -> None:
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert referred == DOCUMENT["components"]["schemas"].keys()


def operation(method: str, path: str) -> Any:
    return DOCUMENT["paths"][path][method]


def test_a_request_and_its_answer_have_their_shapes() -> None:
    made = operation("post", "/api/v1/entries")
    asked = made["requestBody"]["content"]["application/json"]["schema"]
    assert asked == {"$ref": "#/components/schemas/NewRegistration"}
    assert made["responses"].keys() == {"201", "default"}
    refusal = made["responses"]["default"]["content"]
    assert refusal.keys() == {"application/problem+json"}
    schema = DOCUMENT["components"]["schemas"]["NewRegistration"]
    assert schema["required"] == ["selectors", "spiffe_id"]


def test_what_is_no_json_has_its_media_type() -> None:
    asked = operation("post", "/api/v1/ocsp")
    assert asked["requestBody"]["content"] == {"application/ocsp-request": {}}
    assert asked["responses"]["200"]["content"] == {"application/ocsp-response": {}}


def test_one_of_several_answers_is_told_as_such() -> None:
    answer = operation("post", "/api/v1/revoke")["responses"]["200"]["content"]["application/json"]
    assert [one["$ref"].rpartition("/")[2] for one in answer["schema"]["oneOf"]] == [
        "Revoked",
        "RevokedMany",
    ]


def test_parameters_are_in_the_path_or_behind_it() -> None:
    assert [
        (parameter["name"], parameter["in"])
        for parameter in operation("delete", "/api/v1/tokens/{id}")["parameters"]
    ] == [("id", "path"), ("reason", "query")]
