"""The SPIFFE Workload API, line by line as docs/WORKLOAD_API.md lists it: each line is one of these tests."""

import inspect
import json
import re
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from pki.errors import PkiError
from pki.keys import spki_der
from pki.spiffe import TrustDomain
from tests.authorities import MESH, NOW, OTHER, mesh
from tests.twisted_mesh.grpc.sockets import run, turn_until
from tests.twisted_mesh.workload.api_caller import REQUESTS, STREAMS, calling
from tests.twisted_mesh.workload.fake_workloads import (
    FakeWorkloads,
    bundles,
    crl,
    identity,
    refusing,
    snapshot,
    token,
)
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.workload import messages
from twisted_mesh.workload.interface import Bundles, Snapshot
from twisted_mesh.workload.messages import JwtSvidRequest, ValidateJwtSvidRequest

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "WORKLOAD_API.md"
NAMES = {path: path.rpartition("/")[2] for path in REQUESTS}
every_method = pytest.mark.parametrize("path", REQUESTS, ids=NAMES.values())
every_stream = pytest.mark.parametrize("path", STREAMS, ids=[NAMES[path] for path in STREAMS])
NO_ENTRY = PkiError("no entry is met by unix:uid:1000; nearest: web. mesh-ctl why says more")
CA_AWAY = PkiError("the CA cannot be reached")
A, B = MESH.member("service", "a"), MESH.member("service", "b")


# The endpoint.


def test_it_is_grpc_over_a_unix_socket_without_tls_and_without_credentials() -> None:
    with calling() as caller:
        assert caller.stream().x509().svids


@every_method
def test_a_call_without_the_security_header_exactly_once_is_an_invalid_argument(path: str) -> None:
    right = ("workload.spiffe.io", "true")
    with calling() as caller:
        for header in (
            [],
            [("workload.spiffe.io", "True")],
            [right, right],
            [("workload.spiffe.io", "true,true")],
            [("workload.spiffe.io-bin", "dHJ1ZQ==")],
        ):
            refusal = caller.refusal(path, metadata=header)
            assert refusal.status is Status.INVALID_ARGUMENT
            assert "workload.spiffe.io: true" in str(refusal)
        assert not caller.workloads.following


@every_method
def test_it_is_unavailable_while_nothing_is_known(path: str) -> None:
    with calling(FakeWorkloads(refusing(CA_AWAY, final=False))) as caller:
        assert caller.status(path) is Status.UNAVAILABLE


@every_method
def test_permission_is_denied_where_no_identity_is_issued(path: str) -> None:
    with calling(FakeWorkloads(refusing(NO_ENTRY, final=True, known=bundles()))) as caller:
        refusal = caller.refusal(path)
        assert (refusal.status, refusal.text) == (Status.PERMISSION_DENIED, str(NO_ENTRY))


def test_the_callers_identity_is_found_out_by_its_connection_alone() -> None:
    with calling() as caller:
        caller.workloads.who.pid = 4711
        assert caller.stream().x509().svids
        (connection,) = caller.server.connections
        assert connection.caller is caller.workloads.who


def test_server_reflection_is_unimplemented() -> None:
    with calling() as caller:
        for version in ("v1", "v1alpha"):
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            assert caller.status(path) is Status.UNIMPLEMENTED


# All methods.


def test_there_are_these_methods_and_no_more() -> None:
    with calling() as caller:
        assert list(caller.server.methods) == list(REQUESTS)
        assert caller.status("/SpiffeWorkloadAPI/FetchEverything") is Status.UNIMPLEMENTED


def test_the_methods_for_wit_svids_are_unimplemented() -> None:
    with calling() as caller:
        for name in ("FetchWITSVID", "FetchWITBundles"):
            assert caller.status(f"/SpiffeWorkloadAPI/{name}") is Status.UNIMPLEMENTED


def test_a_stream_ends_as_unavailable_when_the_server_is_stopped() -> None:
    with calling() as caller:
        stream = caller.stream()
        stream.x509()
        run(caller.server.drain(1))
        with pytest.raises(GrpcError) as ended:
            stream.next()
        assert ended.value.status is Status.UNAVAILABLE


@every_stream
def test_the_first_answer_of_a_stream_comes_at_once(path: str) -> None:
    with calling() as caller:
        assert caller.stream(path).next()
        assert caller.stream(path).next()


@every_stream
def test_each_answer_of_a_stream_says_all_and_comes_by_a_change_only(path: str) -> None:
    with calling() as caller:
        stream = caller.stream(path)
        first = stream.next()
        caller.workloads.tell(snapshot())  # the same
        caller.workloads.tell(snapshot(foreign=[OTHER]))
        second = stream.next()
        caller.workloads.tell(snapshot())
        assert second != first
        assert stream.next() == first


def test_what_is_withdrawn_is_missing_in_the_next_answer() -> None:
    with calling(FakeWorkloads(snapshot(identity("a"), identity("b"), foreign=[OTHER]))) as caller:
        stream = caller.stream()
        assert len(stream.x509().svids) == 2
        caller.workloads.tell(snapshot(identity("b")))
        now = stream.x509()
        assert ([svid.spiffe_id for svid in now.svids], dict(now.federated_bundles)) == (
            [str(B)],
            {},
        )


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (messages.FETCH_JWT_SVID, JwtSvidRequest().encode()),
        (messages.FETCH_JWT_SVID, JwtSvidRequest(["web", ""]).encode()),
        (messages.VALIDATE_JWT_SVID, ValidateJwtSvidRequest("", "good.one").encode()),
        (messages.VALIDATE_JWT_SVID, ValidateJwtSvidRequest("web", "").encode()),
    ],
    ids=["no-audience", "empty-audience", "validate-no-audience", "validate-no-svid"],
)
def test_a_mandatory_field_that_is_empty_is_an_invalid_argument(path: str, request_: bytes) -> None:
    with calling(FakeWorkloads(tokens=[token()])) as caller:
        refusal = caller.refusal(path, request_)
        assert (refusal.status, "mandatory" in str(refusal)) == (Status.INVALID_ARGUMENT, True)


# FetchX509SVID.


def test_an_x509_svid_has_its_id_chain_key_and_bundle() -> None:
    with calling() as caller:
        (svid,) = caller.stream().x509().svids
    certificates = _certificates(svid.x509_svid)
    ours = identity().svid
    assert svid.spiffe_id == str(ours.spiffe_id)
    assert certificates == list(ours.chain)
    key = load_der_private_key(svid.x509_svid_key, None)
    assert spki_der(key.public_key()) == spki_der(certificates[0].public_key())
    assert _certificates(svid.bundle) == list(mesh(MESH).bundle.roots)


def _certificates(data: bytes) -> list[x509.Certificate]:
    """Of DER one after the other: each says itself how long it is."""
    found = []
    while data:
        size = 4 + int.from_bytes(data[2:4], "big")
        assert data[:2] == b"\x30\x82"
        found.append(x509.load_der_x509_certificate(data[:size]))
        data = data[size:]
    return found


def test_all_identities_come_the_default_one_first() -> None:
    with calling(FakeWorkloads(snapshot(identity("b"), identity("a")))) as caller:
        assert [svid.spiffe_id for svid in caller.stream().x509().svids] == [str(B), str(A)]


def test_no_two_identities_of_one_answer_have_the_same_hint() -> None:
    ours = [identity("a", "in"), identity("b", "in"), identity("c", "out"), identity("d")]
    with calling(FakeWorkloads(snapshot(*ours))) as caller:
        assert [svid.hint for svid in caller.stream().x509().svids] == ["in", "", "out", ""]


def test_federated_bundles_are_kept_apart_by_the_id_of_their_trust_domain() -> None:
    third = TrustDomain("third.example")
    with calling(FakeWorkloads(snapshot(foreign=[OTHER, third]))) as caller:
        found = caller.stream().x509().federated_bundles
    assert {name: _certificates(roots) for name, roots in found.items()} == {
        str(at.id): list(mesh(at).bundle.roots) for at in (OTHER, third)
    }


def test_the_crls_of_each_trust_domain_come_along() -> None:
    with calling(FakeWorkloads(snapshot(foreign=[OTHER]))) as caller:
        assert list(caller.stream().x509().crl) == [crl(MESH), crl(OTHER)]


def test_each_rotation_is_pushed() -> None:
    with calling() as caller:
        stream = caller.stream()
        seen = {stream.x509().svids[0].x509_svid}
        for serial in (1, 2, 3):
            caller.workloads.tell(snapshot(identity(serial=serial)))
            seen.add(stream.x509().svids[0].x509_svid)
    assert len(seen) == 4


@every_stream
def test_a_stream_ends_with_permission_denied_once_all_is_withdrawn(path: str) -> None:
    with calling() as caller:
        stream = caller.stream(path)
        stream.next()
        caller.workloads.tell(refusing(NO_ENTRY, final=True, known=bundles()))
        with pytest.raises(GrpcError, match="nearest: web") as ended:
            stream.next()
        assert ended.value.status is Status.PERMISSION_DENIED
        turn_until(lambda: not caller.workloads.following)


# FetchX509Bundles.


def test_x509_bundles_come_for_each_trust_domain_our_own_among_them() -> None:
    with calling(FakeWorkloads(snapshot(foreign=[OTHER]))) as caller:
        answer = caller.stream(messages.FETCH_X509_BUNDLES).x509_bundles()
    assert {name: _certificates(roots) for name, roots in answer.bundles.items()} == {
        str(at.id): list(mesh(at).bundle.roots) for at in (MESH, OTHER)
    }


def test_the_crls_come_with_the_x509_bundles_too() -> None:
    with calling(FakeWorkloads(snapshot(foreign=[OTHER]))) as caller:
        answer = caller.stream(messages.FETCH_X509_BUNDLES).x509_bundles()
    assert list(answer.crl) == [crl(MESH), crl(OTHER)]


@every_stream
def test_bundles_without_our_own_trust_domain_are_no_answer(path: str) -> None:
    with calling(FakeWorkloads(Snapshot(Bundles(MESH), (identity(),)))) as caller:
        assert caller.status(path) is Status.UNAVAILABLE


def test_who_has_an_identity_keeps_its_bundles_while_none_can_be_signed() -> None:
    now = refusing(CA_AWAY, final=False, known=bundles())
    with calling(FakeWorkloads(now)) as caller:
        assert caller.stream(messages.FETCH_X509_BUNDLES).x509_bundles().bundles
        assert caller.stream(messages.FETCH_JWT_BUNDLES).jwt_bundles().bundles
        assert caller.status(messages.FETCH_X509_SVID) is Status.UNAVAILABLE


# FetchJWTSVID.


def test_a_token_is_for_the_audience_that_was_asked_for() -> None:
    with calling(FakeWorkloads(tokens=[token()])) as caller:
        asked = JwtSvidRequest(["web", "db"]).encode()
        (svid,) = caller.stream(messages.FETCH_JWT_SVID, asked).jwt().svids
        assert (svid.spiffe_id, svid.svid) == (
            str(identity().svid.spiffe_id),
            "token.of.backend",
        )
        assert caller.workloads.asked == [(["web", "db"], None)]


def test_tokens_of_all_identities_come_where_none_is_named() -> None:
    now = snapshot(identity("a"), identity("b"))
    with calling(FakeWorkloads(now, [token("a"), token("b")])) as caller:
        found = caller.stream(messages.FETCH_JWT_SVID).jwt().svids
        assert [svid.spiffe_id for svid in found] == [str(A), str(B)]


def test_the_token_of_the_identity_that_is_named_comes_alone() -> None:
    now = snapshot(identity("a"), identity("b"))
    with calling(FakeWorkloads(now, [token("a"), token("b")])) as caller:
        asked = JwtSvidRequest(["web"], str(B)).encode()
        found = caller.stream(messages.FETCH_JWT_SVID, asked).jwt().svids
        assert [svid.spiffe_id for svid in found] == [str(B)]


def test_no_two_tokens_of_one_answer_have_the_same_hint() -> None:
    now = snapshot(identity("a"), identity("b"))
    with calling(FakeWorkloads(now, [token("a", "in"), token("b", "in")])) as caller:
        found = caller.stream(messages.FETCH_JWT_SVID).jwt().svids
        assert [svid.hint for svid in found] == ["in", ""]


def test_permission_is_denied_for_an_identity_of_somebody_else() -> None:
    with calling(FakeWorkloads(tokens=[token()])) as caller:
        asked = JwtSvidRequest(["web"], "spiffe://mesh.local/service/other").encode()
        refusal = caller.refusal(messages.FETCH_JWT_SVID, asked)
        assert refusal.status is Status.PERMISSION_DENIED
        assert "it is spiffe://mesh.local/service/backend" in refusal.text
        assert not caller.workloads.asked


# FetchJWTBundles.


def test_jwt_bundles_come_for_each_trust_domain_our_own_among_them() -> None:
    with calling(FakeWorkloads(snapshot(foreign=[OTHER]))) as caller:
        answer = caller.stream(messages.FETCH_JWT_BUNDLES).jwt_bundles()
    assert sorted(answer.bundles) == [str(MESH.id), str(OTHER.id)]


def test_jwt_bundles_have_no_keys_of_another_use() -> None:
    ours = bundles()
    keys = [{"use": use, "kid": use} for use in ("x509-svid", "jwt-svid", "sig")]
    jwks = json.dumps({"keys": keys, "spiffe_sequence": 3}).encode()
    now = Snapshot(Bundles(MESH, ours.x509, {MESH: jwks}), (identity(),))
    with calling(FakeWorkloads(now)) as caller:
        answer = caller.stream(messages.FETCH_JWT_BUNDLES).jwt_bundles()
    assert json.loads(answer.bundles[str(MESH.id)]) == {
        "keys": [{"use": "jwt-svid", "kid": "jwt-svid"}],
        "spiffe_sequence": 3,
    }


# ValidateJWTSVID.


def test_a_good_token_is_told_with_its_id_and_claims() -> None:
    with calling(FakeWorkloads(snapshot(foreign=[OTHER]))) as caller:
        answer = caller.stream(messages.VALIDATE_JWT_SVID).valid()
    assert answer.spiffe_id == str(identity().svid.spiffe_id)
    assert answer.claims == {
        "aud": "web",
        "domains": ["mesh.local", "other.example"],
        "exp": NOW.timestamp(),
    }


def test_a_bad_token_is_an_invalid_argument_with_the_reason() -> None:
    with calling() as caller:
        asked = ValidateJwtSvidRequest("web", "bad.one").encode()
        refusal = caller.refusal(messages.VALIDATE_JWT_SVID, asked)
        assert refusal.status is Status.INVALID_ARGUMENT
        assert "not signed by the key" in refusal.text


def test_the_document_and_these_tests_are_the_same() -> None:
    lines = re.findall(r"^\|.*`(test_\w+)` *\|$", DOCUMENT.read_text(), re.MULTILINE)
    here = sys.modules[__name__]
    tests = [
        name
        for name, value in vars(here).items()
        if name.startswith("test_") and inspect.isfunction(value)
    ]
    tests.remove("test_the_document_and_these_tests_are_the_same")
    assert lines == tests
