"""Our bundle for other trust domains: one document for anybody, and nothing else."""

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from pki.svid.bundle import TrustBundle
from pki.svid.federated_document import FederatedDocument
from tests.authorities import MESH, mesh
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.ca.api.bundle_site import BundleSite
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.limits.rate_limit import Rate


class Served:
    """The site, and what is to be served."""

    def __init__(self, rate: Rate | None = None, path: str = "/bundle") -> None:
        self.bundle = evolve(mesh().bundle, sequence=7, refresh_hint=300)
        self.clock = Clock()
        resource = BundleSite(self._now, rate or Rate(100, 100), self.clock, path)
        self.site = BoundedSite(resource, self.clock)

    def _now(self) -> TrustBundle:
        return self.bundle

    def ask(self, path: str = "/bundle", method: str = "GET", **headers: str) -> Answer:
        talk = Talk(self.site, self.clock)
        more = "".join(f"{name.replace('_', '-')}: {said}\r\n" for name, said in headers.items())
        talk.say(
            f"{method} {path} HTTP/1.1\r\nhost: mesh.example\r\ncontent-length: 0\r\n{more}\r\n".encode()
        )
        (answer,) = read_answers(talk.wire.value(), to_head=method == "HEAD")
        return answer


def test_it_is_the_bundle_of_the_moment() -> None:
    served = Served()
    answer = served.ask()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert FederatedDocument.parse(MESH, answer.body) == FederatedDocument(served.bundle)
    served.bundle = evolve(served.bundle, sequence=8)
    assert FederatedDocument.parse(MESH, served.ask().body).bundle.sequence == 8


def test_no_cache_gives_an_older_one_and_nobody_is_sent_the_same_twice() -> None:
    served = Served()
    answer = served.ask()
    assert answer.headers["cache-control"] == "public, no-cache"
    held = answer.headers["etag"]
    again = served.ask(if_none_match=held)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", held)
    served.bundle = evolve(served.bundle, sequence=8)
    assert served.ask(if_none_match=held).status == 200


def test_its_head_can_be_had_alone() -> None:
    served = Served()
    answer = served.ask(method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(served.bundle.to_jwks()))


def test_it_may_have_another_path() -> None:
    assert Served(path="/spiffe/v1/bundle").ask("/spiffe/v1/bundle").status == 200


@pytest.mark.parametrize("path", ["/", "/bundle/", "/Bundle", "/api/v1/sign", "/livez"])
def test_there_is_nothing_else(path: str) -> None:
    answer = Served().ask(path)
    assert (answer.status, answer.json["code"]) == (404, "not-found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_only_read(method: str) -> None:
    answer = Served().ask(method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    served = Served(Rate(1, 3))
    answers = [served.ask() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1"
