"""Tokens of Kubernetes: what a good one proves, and what each forged one gets, from an API server at a real socket."""

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.logger import LogEvent, globalLogPublisher

from pki.errors import Malformed, PkiError
from pki.policy.selector import Selector
from pki.spiffe import TrustDomain
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.api_server import (
    AUDIENCE,
    ISSUER,
    ApiServer,
    Handler,
    private_key,
    serving,
    uid,
    written,
)
from tests.twisted_mesh.attest.records import Record
from tests.twisted_mesh.attest.tokens import Tokens
from tests.twisted_mesh.federation.hostile import reactor, web_certificate
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence, EvidenceExpired
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.k8s import K8sAttestor
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.evidence.interface import AttestationData
from twisted_mesh.runtime.clock import wall_clock

POD, SA, NODE = uid("pod"), uid("sa"), uid("node")
OF_THE_TOKEN = {
    "k8s_psat:cluster:prod",
    "k8s_psat:agent_ns:shop",
    "k8s_psat:agent_sa:api",
    "k8s_psat:agent_pod_name:api-7k",
    f"k8s_psat:agent_pod_uid:{POD}",
    "k8s_psat:agent_node_name:node7",
    f"k8s_psat:agent_node_uid:{NODE}",
    "k8s:ns:shop",
    "k8s:sa:api",
    "k8s:pod-name:api-7k",
    f"k8s:pod-uid:{POD}",
    "k8s:node-name:node7",
}
OF_THE_POD = {
    "k8s_psat:agent_node_ip:10.0.0.7",
    "k8s_psat:agent_pod_label:app:api",
    "k8s_psat:agent_node_label:tier:front",
    "k8s:pod-label:app:api",
    "k8s:pod-owner:ReplicaSet:api",
    f"k8s:pod-owner-uid:ReplicaSet:{uid('rs')}",
    "k8s:pod-image:example/api:1",
    "k8s:pod-image:example/api@sha256:00",
    "k8s:pod-image-count:1",
    "k8s:pod-init-image-count:0",
}
LOOKING = {
    "look_up_pods": True,
    "allowed_pod_label_keys": ["app"],
    "allowed_node_label_keys": ["tier"],
}


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serving(ApiServer()) as api:
        yield api


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def means() -> Any:
    found = Tokens().find, {}.get, wall_clock, Record().find
    return Means(reactor(), *found, trust_domain=TrustDomain("mesh.test"))  # type: ignore[arg-type]


def attestor(*tables: dict[str, Any]) -> K8sAttestor:
    return K8sAttestor.of(K8sAttestor.read(list(tables), "[k8s]"), means())


def shown(token: object) -> Evidence:
    return Evidence(attestation=AttestationData("k8s", json.dumps(token).encode()))


def attested(judge: K8sAttestor, token: object) -> Attestation:
    found = run(judge.attest(shown(token)))
    assert found is not None
    return found


def refusal(judge: K8sAttestor, token: object) -> PkiError:
    with pytest.raises(PkiError) as refused:
        run(judge.attest(shown(token)))
    text = f"{refused.value} {refused.value!r} {refused.value.problems}"
    assert text.isprintable()
    assert not isinstance(token, str) or len(token) < 40 or token not in text
    return refused.value


def reviews(api: ApiServer) -> list[str]:
    return [one for one in api.asked if one.startswith("POST ")]


def texts(found: Attestation) -> set[str]:
    assert all(Selector.parse(str(one)) == one for one in found.selectors)
    return {str(one) for one in found.selectors}


def test_a_pod_is_known_by_its_projected_token(api: ApiServer, tmp_path: Path) -> None:
    judge, token = attestor(written(api, tmp_path)), api.token()
    found = attested(judge, token)
    assert texts(found) == OF_THE_TOKEN
    assert found.proof == f"k8s:prod/shop/api/{POD}"
    assert found.claim is None
    # A pod that starts anew has the same token again.
    assert attested(judge, token) == found
    assert token not in repr(found)


def test_more_is_known_of_a_pod_that_is_looked_up(api: ApiServer, tmp_path: Path) -> None:
    found = attested(attestor(written(api, tmp_path, **LOOKING)), api.token())
    assert texts(found) == OF_THE_TOKEN | OF_THE_POD
    assert api.asked == [
        "GET /openid/v1/jwks",
        "POST /apis/authentication.k8s.io/v1/tokenreviews",
        "GET /api/v1/namespaces/shop/pods/api-7k",
        "GET /api/v1/nodes/node7",
    ]


def test_by_keys_alone_nobody_notices_that_a_pod_is_gone(api: ApiServer, tmp_path: Path) -> None:
    judge = attestor(written(api, tmp_path, by_keys_alone=True))
    api.pods.clear()
    assert texts(attested(judge, api.token())) == OF_THE_TOKEN
    assert api.asked == ["GET /openid/v1/jwks"]
    assert isinstance(refusal(judge, api.token(key="another")), BadEvidence)
    assert isinstance(refusal(judge, api.token(kid="unknown")), BadEvidence)


def test_the_keys_may_be_in_a_file_that_is_read_again(api: ApiServer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(api.jwks())
    path.chmod(0o644)
    judge = attestor(written(api, tmp_path, by_keys_alone=True, jwks_file=str(path)))
    assert texts(attested(judge, api.token())) == OF_THE_TOKEN
    api.key = "the next"
    assert isinstance(refusal(judge, api.token()), BadEvidence)
    path.write_bytes(api.jwks())
    assert attested(judge, api.token())
    path.unlink()
    assert isinstance(refusal(judge, api.token()), AttestorUnavailable)
    assert not api.asked


def test_clusters_are_told_apart_by_their_issuers(api: ApiServer, tmp_path: Path) -> None:
    other = ApiServer(issuer="https://staging.example", key="staging")
    with serving(other):
        prod = written(api, tmp_path)
        staging = written(other, tmp_path, cluster="staging")
        judge = attestor(prod, {**staging, "default": True})
        assert texts(attested(judge, api.token())) == {
            text for text in OF_THE_TOKEN if text.startswith("k8s_psat:")
        }
        seen = texts(attested(judge, other.token()))
    assert "k8s_psat:cluster:staging" in seen
    assert "k8s:ns:shop" in seen
    assert (len(reviews(api)), len(reviews(other))) == (1, 1)
    # A key of one cluster makes no token of the other.
    forged = api.token(key="staging")
    assert isinstance(refusal(judge, forged), BadEvidence)


def _bound(**other: Any) -> dict[str, Any]:
    whole = {**ApiServer().claims()["kubernetes.io"], **other}
    return {name: value for name, value in whole.items() if value is not None}


def _now(seconds: int) -> int:
    return int(time.time()) + seconds


def _with_hmac(api: ApiServer) -> str:
    """Signed by a secret that everybody knows: the cluster's public key."""
    whole = api.token().encode().split(b".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": api.key}).encode())
    signed = head.rstrip(b"=") + b"." + whole[1]
    public = private_key(api.key).public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    code = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + code).decode()


LEGACY = {
    "iss": "kubernetes/serviceaccount",
    "kubernetes.io/serviceaccount/namespace": "shop",
    "kubernetes.io/serviceaccount/secret.name": "api-token-x7k2p",
    "kubernetes.io/serviceaccount/service-account.name": "api",
    "kubernetes.io/serviceaccount/service-account.uid": SA,
    "sub": "system:serviceaccount:shop:api",
}
OFFLINE = {"no JSON string", "not a token", "two parts", "of a Secret", "of another cluster"}
FORGED: dict[str, tuple[Callable[[ApiServer], object], type[PkiError], str]] = {
    "no JSON string": (lambda api: {"token": api.token()}, BadEvidence, "JSON string"),
    "not a token": (lambda _: "x" * 400, BadEvidence, "three parts"),
    "two parts": (lambda api: api.token().rpartition(".")[0], BadEvidence, "three parts"),
    "over long": (lambda api: api.token(pad="x" * 20_000), BadEvidence, "characters"),
    "unsigned": (lambda api: jwt.encode(api.claims(), "", "none"), BadEvidence, "alg is 'none'"),
    "signed by the public key's text": (
        _with_hmac,
        BadEvidence,
        "alg is 'HS256'",
    ),
    "of another key": (lambda api: api.token(key="forger"), BadEvidence, "signature is not that"),
    "of a key that nobody has": (lambda api: api.token(kid="x"), BadEvidence, "has no such key"),
    "of another cluster": (
        lambda api: api.token(iss="https://other.example"),
        BadEvidence,
        "takes none of that issuer's",
    ),
    "for another audience": (lambda api: api.token(aud=["vault"]), BadEvidence, "must be for mesh"),
    "for the API server": (lambda api: api.token(aud=[ISSUER]), BadEvidence, "must be for mesh"),
    "for another audience too": (
        lambda api: api.token(aud=[AUDIENCE, "vault"]),
        BadEvidence,
        "must be for mesh alone",
    ),
    "for nobody": (lambda api: api.token(aud=[]), BadEvidence, "no aud"),
    "expired": (lambda api: api.token(exp=_now(-120)), EvidenceExpired, "good until"),
    "not yet good": (lambda api: api.token(nbf=_now(600)), EvidenceExpired, "good from"),
    "made in the future": (
        lambda api: api.token(iat=_now(600), exp=_now(900)),
        EvidenceExpired,
        "good from",
    ),
    "without an end": (lambda api: api.token(exp=None), BadEvidence, "exp"),
    "good for a year": (lambda api: api.token(exp=_now(365 * 86400)), BadEvidence, "longer than"),
    "of a Secret": (
        lambda _: jwt.encode(LEGACY, private_key("cluster"), "ES256", {"kid": "cluster"}),
        BadEvidence,
        "keeps in a Secret",
    ),
    "bound to no pod": (
        lambda api: api.token(**{"kubernetes.io": _bound(pod=None)}),
        BadEvidence,
        "bound to no pod",
    ),
    "of no service account": (
        lambda api: api.token(**{"kubernetes.io": {}}),
        BadEvidence,
        "no service account's",
    ),
    "of a namespace that is a path": (
        lambda api: api.token(**{"kubernetes.io": _bound(namespace="../../x")}),
        BadEvidence,
        "as no cluster names one",
    ),
    "of a pod that is a path": (
        lambda api: api.token(**{"kubernetes.io": _bound(pod={"name": "a/../b", "uid": POD})}),
        BadEvidence,
        "as no cluster names one",
    ),
    "of another subject": (
        lambda api: api.token(sub="system:serviceaccount:shop:root"),
        BadEvidence,
        "sub is another",
    ),
    "of a service account that is not taken": (
        lambda api: api.token(
            sub="system:serviceaccount:web:api", **{"kubernetes.io": _bound(namespace="web")}
        ),
        BadEvidence,
        "web:api is not among",
    ),
    "of another pod's UID": (
        lambda api: api.token(**{"kubernetes.io": _bound(pod={"name": "api-7k", "uid": uid("x")})}),
        BadEvidence,
        "does not know",
    ),
    "of an account that was made anew": (
        lambda api: api.token(
            **{"kubernetes.io": _bound(serviceaccount={"name": "api", "uid": uid("x")})}
        ),
        BadEvidence,
        "does not know",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_evidence_is_refused(what: str, api: ApiServer, tmp_path: Path) -> None:
    make, kind, words = FORGED[what]
    error = refusal(attestor(written(api, tmp_path)), make(api))
    assert type(error) is kind
    assert words in str(error)
    # What can be seen to be no good is shown to nobody.
    assert bool(reviews(api)) is ("does not know" in words)


@pytest.mark.parametrize("what", FORGED)
def test_it_is_refused_by_keys_alone_as_well(what: str, api: ApiServer, tmp_path: Path) -> None:
    unnoticed = ("of another pod's UID", "of an account that was made anew")
    judge, token = attestor(written(api, tmp_path, by_keys_alone=True)), FORGED[what][0](api)
    if what in unnoticed:
        assert attested(judge, token)
    else:
        assert isinstance(refusal(judge, token), BadEvidence)


def test_without_the_keys_the_api_server_alone_says_what_is_forged(
    api: ApiServer, tmp_path: Path
) -> None:
    def fault(handler: Handler) -> None:
        if handler.command == "GET":
            handler.refuse(403, "forbidden")
        else:
            handler._post()

    api.fault = fault
    judge = attestor(written(api, tmp_path))
    assert attested(judge, api.token())
    for forged in (api.token(key="forger"), api.token(kid="x", key="forger")):
        assert "does not know" in str(refusal(judge, forged))
    assert len(reviews(api)) == 3


def test_a_deleted_pod_proves_nothing_any_more(api: ApiServer, tmp_path: Path) -> None:
    judge, token = attestor(written(api, tmp_path)), api.token()
    assert attested(judge, token)
    del api.pods["shop", "api-7k"]
    assert isinstance(refusal(judge, token), BadEvidence)
    # Nor does another one of the same name.
    api.run_pod(made="again")
    assert isinstance(refusal(judge, token), BadEvidence)


def _altered(**other: Any) -> Callable[[dict[str, Any]], None]:
    return lambda status: status.update(other)


def _user(**other: Any) -> Callable[[dict[str, Any]], None]:
    return lambda status: status["user"].update(other)


def _extra(**other: Any) -> Callable[[dict[str, Any]], None]:
    return lambda status: status["user"]["extra"].update(
        {
            f"authentication.kubernetes.io/{name.replace('_', '-')}": value
            for name, value in other.items()
        }
    )


ANSWERS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "not authenticated": (_altered(authenticated=False), "does not know"),
    "without audiences": (lambda status: status.pop("audiences"), "for this CA"),
    "with no audience": (_altered(audiences=[]), "for this CA"),
    "with another audience": (_altered(audiences=["vault"]), "for this CA"),
    "for another user": (_user(username="system:serviceaccount:shop:root"), "shop:root's"),
    "for a person": (_user(username="alice"), "takes the token for alice's"),
    "for nobody": (_user(username=""), "takes the token for nobody's"),
    "for another account of that name": (_user(uid=uid("x")), "UIDs differ"),
    "for no pod": (_user(extra={}), "(none)"),
    "for another pod": (_extra(pod_name=["web-1"]), "web-1"),
    "for another pod of that name": (_extra(pod_uid=[uid("x")]), "UIDs differ"),
    "for two pods": (_extra(pod_uid=[POD, uid("x")]), "UIDs differ"),
    "for another node": (_extra(node_name=["node8"]), "two nodes"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_half_a_yes_is_none(what: str, api: ApiServer, tmp_path: Path) -> None:
    api.review, words = ANSWERS[what]
    error = refusal(attestor(written(api, tmp_path)), api.token())
    assert isinstance(error, BadEvidence)
    assert words in str(error)


def _pod(change: Callable[[dict[str, Any]], Any]) -> Callable[[ApiServer], Any]:
    return lambda api: change(api.pods["shop", "api-7k"])


PODS: dict[str, tuple[Callable[[ApiServer], Any], str]] = {
    "gone": (lambda api: api.pods.clear(), "no pod"),
    "another of that name": (_pod(lambda pod: pod["metadata"].update(uid=uid("x"))), "UIDs differ"),
    "of another namespace": (
        _pod(lambda pod: pod["metadata"].update(namespace="x")),
        "UIDs differ",
    ),
    "of another account": (
        _pod(lambda pod: pod["spec"].update(serviceAccountName="root")),
        "another service account",
    ),
    "ended": (_pod(lambda pod: pod["status"].update(phase="Succeeded")), "has ended"),
    "broken down": (_pod(lambda pod: pod["status"].update(phase="Failed")), "has ended"),
    "on another node": (_pod(lambda pod: pod["spec"].update(nodeName="node8")), "another node"),
    "on a node that is gone": (lambda api: api.nodes.clear(), "no node"),
    "on a node that was made anew": (
        lambda api: api.nodes["node7"]["metadata"].update(uid=uid("x")),
        "UIDs differ",
    ),
}


@pytest.mark.parametrize("what", PODS)
def test_a_pod_must_be_the_one_that_the_token_is_bound_to(
    what: str, api: ApiServer, tmp_path: Path
) -> None:
    """Also where the API server has only just said that all is well."""
    change, words = PODS[what]
    review = api.reviewed

    def reviewed(token: str, audiences: list[str]) -> dict[str, Any]:
        status = review(token, audiences)
        change(api)
        return status

    api.reviewed = reviewed  # type: ignore[method-assign]
    error = refusal(attestor(written(api, tmp_path, **LOOKING)), api.token())
    assert isinstance(error, BadEvidence)
    assert words in str(error)


def _slowly(handler: Handler) -> None:
    for _ in range(40):
        handler.wfile.write(b"HTTP/1.1 201 C\r\n" if _ == 0 else b"X: y\r\n")
        time.sleep(0.02)


def _without_a_word(handler: Handler) -> None:
    handler.close_connection = True


FAULTS: dict[str, tuple[Callable[[Handler], None], str]] = {
    "401": (lambda h: h.refuse(401, "Unauthorized"), "token_file"),
    "403": (lambda h: h.refuse(403, "tokenreviews is forbidden"), "ClusterRole"),
    "404": (lambda h: h.refuse(404, "not found"), "404"),
    "409": (lambda h: h.refuse(409, "conflict"), "409"),
    "500": (lambda h: h.refuse(500, "etcd is away"), "etcd is away"),
    "a redirection": (lambda h: h.say(302, b"", location="https://localhost:1/"), "302"),
    "no JSON": (lambda h: h.say(201, b"<html>"), "cannot be read"),
    "a key twice": (
        lambda h: h.say(
            201, b'{"kind":"TokenReview","status":{"authenticated":false,"authenticated":true}}'
        ),
        "cannot be read",
    ),
    "a yes in words": (
        lambda h: h.say(201, {"kind": "TokenReview", "status": {"authenticated": "true"}}),
        "cannot be read",
    ),
    "something else": (
        lambda h: h.say(201, {"kind": "Status", "status": {"authenticated": True}}),
        "something else",
    ),
    "nested deeply": (lambda h: h.say(201, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), "deeply"),
    "oversize": (lambda h: h.say(201, b'"' + b"x" * 200_000 + b'"'), "more than"),
    "compressed": (lambda h: h.say(201, b"{}", content_encoding="gzip"), "encoding"),
    "slow": (_slowly, "did not answer"),
    "nothing": (_without_a_word, "closed it"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_an_api_server_that_does_not_answer_lets_nobody_in(
    what: str, api: ApiServer, tmp_path: Path, logged: list[LogEvent]
) -> None:
    fault, words = FAULTS[what]
    judge = attestor(written(api, tmp_path, timeout=0.3 if what == "slow" else 5.0))
    api.fault = fault
    error = refusal(judge, api.token())
    assert type(error) is AttestorUnavailable
    assert error.retry_after >= 1
    whys = [event["why"] for event in logged if event.get("event") == "k8s-api-away"]
    assert words in whys[-1]
    # It is asked again, and what was wrong is not held against anybody.
    api.fault = None
    assert attested(judge, api.token())


def test_it_says_itself_when_to_come_again(api: ApiServer, tmp_path: Path) -> None:
    judge = attestor(written(api, tmp_path))
    for said, expected in (("17", 17), ("100000", 5), ("soon", 5), ("900", 60)):
        api.fault = lambda h, said=said: h.say(429, b"{}", retry_after=said)  # type: ignore[misc]
        error = refusal(judge, api.token())
        assert isinstance(error, AttestorUnavailable)
        assert error.retry_after == expected


WRONG_SERVERS: dict[str, Callable[[], Any]] = {
    "of another CA": lambda: web_certificate("localhost", issuer="another CA"),
    "for another host": lambda: web_certificate("other.example"),
    "expired": lambda: web_certificate("localhost", days=0),
}


@pytest.mark.parametrize("what", WRONG_SERVERS)
def test_only_the_api_server_itself_is_shown_anything(what: str, tmp_path: Path) -> None:
    with serving(ApiServer(), WRONG_SERVERS[what]()) as api:
        error = refusal(attestor(written(api, tmp_path)), api.token())
    assert isinstance(error, AttestorUnavailable)
    assert not api.asked


def test_nobody_is_let_in_by_an_api_server_that_is_gone(api: ApiServer, tmp_path: Path) -> None:
    with serving(ApiServer()) as gone:
        table = written(gone, tmp_path)
    for judge in (attestor(table), attestor({**table, "by_keys_alone": True})):
        assert isinstance(refusal(judge, gone.token()), AttestorUnavailable)


def test_its_own_files_are_read_each_time(api: ApiServer, tmp_path: Path) -> None:
    table = written(api, tmp_path)
    judge = attestor(table)
    for name in ("token_file", "ca_file"):
        path = Path(table[name])
        for spoilt in (b"", b"a\r\nX-Other: b", None):
            good = path.read_bytes()
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            assert isinstance(refusal(judge, api.token()), AttestorUnavailable)
            path.write_bytes(good)
            path.chmod(0o644)
            assert attested(judge, api.token())


def test_so_many_questions_are_under_way_and_no_more(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_mesh.attest.k8s_api.MOST_UNDER_WAY", 0)
    judge = attestor(written(api, tmp_path))
    assert isinstance(refusal(judge, api.token()), AttestorUnavailable)
    monkeypatch.undo()
    assert attested(judge, api.token())


def test_what_is_not_for_it_is_none_of_its_business(api: ApiServer, tmp_path: Path) -> None:
    judge = attestor(written(api, tmp_path))
    for other in (Evidence(), Evidence(attestation=AttestationData("oidc", b'"x"'))):
        assert run(judge.attest(other)) is None
    assert run(judge.challenge("k8s", b"")) is None


BAD_TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown member": ({"audiences": ["x"]}, "there are cluster, audience"),
    "no cluster": ({"cluster": ""}, "cluster is a name"),
    "a cluster with a colon": ({"cluster": "a:b"}, "cluster is a name"),
    "no audience": ({"audience": []}, "audience is a list"),
    "the API server's audience": ({"audience": [ISSUER]}, "API server's own"),
    "nobody": ({"service_account_allow_list": []}, "names whose tokens are taken"),
    "no account": ({"service_account_allow_list": ["api"]}, "no service account"),
    "a half pattern": ({"service_account_allow_list": ["shop:a*"]}, "no service account"),
    "no issuer": ({"issuer": ""}, "issuer is what"),
    "plain http": ({"server": "http://localhost:8080"}, "plain http"),
    "a server that is none": ({"server": "localhost"}, "no URL"),
    "a relative file": ({"ca_file": "ca.crt"}, "no absolute path"),
    "no file": ({"token_file": ""}, "are files"),
    "a timeout of nothing": ({"timeout": 0.0}, "timeout is seconds"),
    "a lifetime that is none": ({"max_lifetime": "long"}, "max_lifetime"),
    "keys alone that ask": ({"by_keys_alone": True, "look_up_pods": True}, "asks the API server"),
    "keys of nobody": ({"jwks_file": "/x"}, "is for by_keys_alone"),
    "the wrong type": ({"audience": "mesh"}, "array"),
}


@pytest.mark.parametrize("what", BAD_TABLES)
def test_a_table_that_is_no_good_is_refused(what: str, tmp_path: Path) -> None:
    change, words = BAD_TABLES[what]
    with pytest.raises(Malformed, match=r"\[k8s\]") as refused:
        K8sAttestor.read(written(ApiServer(), tmp_path, **change), "[k8s]")
    assert words in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    one = written(ApiServer(), tmp_path, default=True)
    with pytest.raises(Malformed) as refused:
        K8sAttestor.read([one, one, {**one, "audience": []}], "[k8s]")
    for words in (
        "two clusters are called prod",
        "have one issuer",
        "both the default",
        "audience",
    ):
        assert words in str(refused.value)
    with pytest.raises(Malformed, match="no cluster in it"):
        K8sAttestor.read([], "[k8s]")


def test_a_clock_that_is_a_little_off_is_borne(api: ApiServer, tmp_path: Path) -> None:
    judge = attestor(written(api, tmp_path, by_keys_alone=True))
    judge = evolve(judge, now=lambda: wall_clock() - timedelta(seconds=30))
    assert attested(judge, api.token())
