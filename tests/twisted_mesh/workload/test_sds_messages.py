import pytest
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from twisted_mesh.workload.sds_messages import (
    SECRET_URL,
    Content,
    DeltaRequest,
    DeltaResponse,
    Request,
    Response,
    Secret,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.lists(texts, max_size=4).map(tuple)
errors = st.none() | texts.filter(bool)
requests = st.builds(Request, names, texts, texts, errors, texts, texts)
delta_requests = st.builds(
    DeltaRequest,
    names,
    names,
    st.dictionaries(texts, texts, max_size=3),
    texts,
    errors,
    texts,
    texts,
)
secrets = st.builds(Secret, texts, texts, st.binary(max_size=20))
responses = st.builds(
    Response, texts, texts, st.lists(st.binary(max_size=20), max_size=3).map(tuple)
)
delta_responses = st.builds(
    DeltaResponse, texts, texts, st.lists(secrets, max_size=3).map(tuple), names
)
contents = st.builds(
    Content, texts, st.binary(min_size=1, max_size=20), st.binary(max_size=20)
) | st.builds(
    Content, texts, bundles=st.dictionaries(texts, st.binary(max_size=20), min_size=1, max_size=3)
)
ALL = (Request, DeltaRequest, Response, DeltaResponse, Content)


@given(requests | delta_requests | responses | delta_responses | contents)
def test_what_is_written_is_read_back(
    message: Request | DeltaRequest | Response | DeltaResponse | Content,
) -> None:
    assert type(message).parse(message.encode()) == message


@given(st.binary(max_size=200), st.sampled_from(ALL))
def test_of_any_bytes_nothing_comes_but_a_message_or_malformed(data: bytes, kind: type) -> None:
    try:
        kind.parse(data)  # type: ignore[attr-defined]
    except Malformed as error:
        assert "SDS v3" in str(error)


def test_the_fields_have_the_numbers_of_envoy() -> None:
    """Each byte by its protobuf tag: the field's number times eight, plus two for what has a length."""
    request = Request(("a",), "v", "n", "no", "t", "me")
    assert request.encode() == (
        b"\x0a\x01v" + b"\x12\x04\x0a\x02me" + b"\x1a\x01a" + b"\x22\x01t" + b"\x2a\x01n"
        b"\x32\x06\x08\x0d\x12\x02no"
    )
    delta = DeltaRequest(("a",), ("b",), {"k": "v"}, "n", "no", "t", "me")
    assert delta.encode() == (
        b"\x0a\x04\x0a\x02me" + b"\x12\x01t" + b"\x1a\x01a" + b"\x22\x01b"
        b"\x2a\x06\x0a\x01k\x12\x01v" + b"\x32\x01n" + b"\x3a\x06\x08\x0d\x12\x02no"
    )
    url = SECRET_URL.encode()
    secret = any_pb2.Any(type_url=SECRET_URL, value=b"s").SerializeToString()
    about = b"\x22" + bytes([len(url)]) + url
    assert Response("v", "n", (b"s",)).encode() == (
        b"\x0a\x01v" + b"\x12" + bytes([len(secret)]) + secret + about + b"\x2a\x01n"
    )
    resource = b"\x0a\x01v" + b"\x12" + bytes([len(secret)]) + secret + b"\x1a\x01a"
    assert DeltaResponse("w", "n", (Secret("a", "v", b"s"),), ("gone",)).encode() == (
        b"\x0a\x01w" + b"\x12" + bytes([len(resource)]) + resource + about + b"\x2a\x01n"
        b"\x32\x04gone"
    )
    assert (
        Content("a", b"c", b"k").encode() == b"\x0a\x01a\x12\x0a\x0a\x03\x12\x01c\x12\x03\x12\x01k"
    )
    assert b"envoy.tls.cert_validator.spiffe" in Content("a", bundles={"td": b"pem"}).encode()
    assert b"\x0a\x02td\x12\x05\x12\x03pem" in Content("a", bundles={"td": b"pem"}).encode()


def test_fields_that_are_not_ours_are_passed_over() -> None:
    """A real node says which extensions it has, for a hundred kilobytes."""
    strange = b"\x7a\x03new"
    assert Request.parse(Request(("a",)).encode() + strange) == Request(("a",))


def test_an_answer_about_something_else_is_refused() -> None:
    other = Response("v", "n").encode().replace(b"Secret", b"Sacret")
    with pytest.raises(Malformed, match="not about secrets"):
        Response.parse(other)


def test_a_key_is_in_no_repr() -> None:
    shown = repr(
        (Content("a", b"chain", b"key"), Secret("a", "v", b"key"), Response("v", "n", (b"key",)))
    )
    assert "b'key'" not in shown


def test_a_refusal_without_a_word_is_one_all_the_same() -> None:
    assert Request.parse(b"\x32\x02\x08\x0d").error == "status 13, without a word"
