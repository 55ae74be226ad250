"""The CRLs that go along with bundles: one of each CA, all of now, or none."""

from collections.abc import Iterator

import pytest
from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred, succeed

from pki.codes import Code
from pki.errors import PkiError
from tests.authorities import mesh
from tests.twisted_mesh.revocation.published import HOUR, Publishing
from twisted_mesh.api.messages import PublishedCrls
from twisted_mesh.workload.crl_keeper import CrlKeeper


class Away(PkiError):
    code = Code.UNREACHABLE


@define(eq=False)
class Keeping:
    """A keeper, the CA that it asks, and what it has told."""

    published: Publishing = field(factory=Publishing)
    is_away: bool = False
    asked: int = 0
    told: list[int] = field(factory=list)
    keeper: CrlKeeper = field(init=False)

    def __attrs_post_init__(self) -> None:
        def changed() -> None:
            self.told.append(len(self.keeper.lists))

        clock = self.published.clock
        self.keeper = CrlKeeper(self.fetch, changed, clock, clock.now, now_and_here)
        self.svid = self.published.ca.member("web").svid

    svid: object = field(init=False, default=None)

    async def fetch(self) -> PublishedCrls:
        self.asked += 1
        if self.is_away:
            raise Away("no answer")
        return self.published.answer()

    beside: tuple[x509.Certificate, ...] = ()

    def look(self, seconds: float = 0.0) -> None:
        self.published.clock.advance(seconds)
        ca = self.published.ca
        self.keeper.look(self.svid, ca.bundle, ca.revoked, self.beside)  # type: ignore[arg-type]


def now_and_here(call: object, *arguments: object) -> Deferred[object]:
    return succeed(call(*arguments))  # type: ignore[operator]


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    yield Keeping()


def test_one_of_each_ca_goes_along(keeping: Keeping) -> None:
    keeping.look()
    assert keeping.told == [2]
    keeping.look(60)
    assert keeping.asked == 1


def test_the_list_of_an_issuing_ca_is_asked_for_before_it_issues(keeping: Keeping) -> None:
    keeping.look()
    keeping.beside = (mesh().issuing.certificate,)
    keeping.look()
    assert keeping.asked == 2, "at once"
    for _ in range(100):
        keeping.look(0.4)
    assert keeping.asked == 2 + 10, "for a moment, as its list is made; and not for ever"


def test_they_are_fetched_before_they_end(keeping: Keeping) -> None:
    keeping.look()
    keeping.look(HOUR.total_seconds() * 0.7)
    assert keeping.asked == 2


def test_without_one_of_them_there_is_none(keeping: Keeping) -> None:
    keeping.published.left_out.append(keeping.published.ca.root)
    keeping.look()
    assert keeping.told == []
    keeping.published.left_out.clear()
    keeping.look(60)
    assert keeping.told == [2]


def test_one_that_ends_while_the_ca_is_away_takes_all_along(keeping: Keeping) -> None:
    keeping.look()
    keeping.is_away = True
    keeping.look(HOUR.total_seconds() - 1)
    assert keeping.told == [2]
    keeping.look(2)
    assert keeping.told == [2, 0]
    keeping.is_away = False
    keeping.look(60)
    assert keeping.told == [2, 0, 2]
