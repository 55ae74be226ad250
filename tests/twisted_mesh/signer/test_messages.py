"""The protocol of a signer: bytes are base64, and a request says what its shape has and no more."""

import base64

import msgspec
import pytest

from twisted_mesh.http.json import BadRequest, parse_json
from twisted_mesh.signer.messages import (
    MAX_BODY,
    MAX_DATA,
    Key,
    KeyPurpose,
    KeyWhereabouts,
    NewKey,
    SignRequest,
    WhereaboutsRequest,
)


def test_bytes_are_base64() -> None:
    body = msgspec.json.encode(SignRequest("issuing-1", b"\x30\x00\xff"))
    assert msgspec.json.decode(body) == {"key": "issuing-1", "data": "MAD/"}
    assert parse_json(body, SignRequest).data == b"\x30\x00\xff"


@pytest.mark.parametrize("data", ["MAD_", "MAD", "MAD/\n", "=", "é"])
def test_what_is_no_base64_is_refused(data: str) -> None:
    with pytest.raises(BadRequest):
        parse_json(msgspec.json.encode({"key": "a", "data": data}), SignRequest)


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (SignRequest, {"key": "a", "data": "", "hash": "sha256"}),
        (NewKey, {"purpose": "root", "algorithm": "ec-p384", "label": "x", "extractable": True}),
        (NewKey, {"purpose": "leaf", "algorithm": "ec-p384", "label": "x"}),
        (WhereaboutsRequest, {"key": "a", "pin": "1234"}),
    ],
)
def test_a_request_has_no_more_than_its_shape(shape: type[object], body: object) -> None:
    with pytest.raises(BadRequest):
        parse_json(msgspec.json.encode(body), shape)


def test_the_largest_data_fits_into_a_body() -> None:
    encoded = 4 * ((MAX_DATA + 2) // 3)
    assert encoded + len(msgspec.json.encode(SignRequest("k" * 255, b""))) <= MAX_BODY


def test_a_key_and_its_whereabouts_are_read_as_they_were_written() -> None:
    key = Key("issuing-1", "ec-p256", b"spki", KeyPurpose.ISSUING, "mesh.local issuing-1", "files")
    assert msgspec.json.decode(msgspec.json.encode(key), type=Key) == key
    told = msgspec.json.decode(msgspec.json.encode(key))
    assert told["purpose"] == "issuing"
    assert told["public_key"] == base64.b64encode(b"spki").decode()
    where = KeyWhereabouts("issuing-1", "files", is_extractable=False)
    encoded = msgspec.json.encode(where)
    assert msgspec.json.decode(encoded) == {
        "key": "issuing-1",
        "store": "files",
        "is_extractable": False,
    }
    assert msgspec.json.decode(encoded, type=KeyWhereabouts) == where
