from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pki.errors import Malformed
from twisted_mesh.workload.sds_messages import (
    Content,
    DeltaRequest,
    DeltaResponse,
    Request,
    Response,
    Secret,
)
from twisted_mesh.workload.sds_offer import Offer
from twisted_mesh.workload.sds_stream import MOST_NAMES, DeltaStream, Outcome, WholeStream

SHOP, CART = "spiffe://mesh.local/service/shop", "spiffe://mesh.local/service/cart"
NAMES = (SHOP, CART, "default", "ROOTCA", "nobody")


def offer(is_whole: bool = True, /, **versions: str) -> Offer:
    return offered(versions, is_whole)


def offered(versions: Mapping[str, str], is_whole: bool = True) -> Offer:
    """``default`` is an alias; the others are what there is."""
    makers = {
        name: lambda name, version=version: Secret(
            name, version, Content(name, version.encode(), b"key").encode()
        )
        for name, version in versions.items()
    }
    return Offer(makers, tuple(name for name in versions if name != "default"), is_whole)


def told(answer: Response | None) -> dict[str, str]:
    """By name what an answer has, which is the version in these tests; empty where there is none."""
    if answer is None:
        return {}
    contents = [Content.parse(data) for data in answer.secrets]
    return {content.name: content.chain.decode() for content in contents}


def changes(answer: DeltaResponse | None) -> dict[str, str | None]:
    if answer is None:
        return {}
    fresh = {secret.name: secret.version for secret in answer.secrets}
    return fresh | dict.fromkeys(answer.removed)


class TestWhole:
    def test_what_is_asked_for_is_told_once(self) -> None:
        stream, there = WholeStream(), offer(a="1", b="1")
        assert stream.due(there) is None
        assert stream.ask(Request(("a",))).outcome is Outcome.ASKED
        answer = stream.due(there)
        assert told(answer) == {"a": "1"}
        assert stream.due(there) is None

    def test_a_change_is_pushed_and_only_of_what_is_asked_for(self) -> None:
        stream = WholeStream()
        stream.ask(Request(("a",)))
        first = stream.due(offer(a="1", b="1"))
        assert stream.due(offer(a="1", b="2")) is None
        second = stream.due(offer(a="2", b="2"))
        assert told(second) == {"a": "2"}
        assert first and second
        assert (first.nonce, first.version) != (second.nonce, second.version)

    def test_the_same_secrets_have_the_same_version_on_another_stream(self) -> None:
        answers = []
        for _ in range(2):
            stream = WholeStream()
            stream.ask(Request(("a", "b")))
            answers.append(stream.due(offer(a="1", b="1")))
        assert answers[0] == answers[1]

    def test_an_acknowledgment_asks_for_nothing(self) -> None:
        stream, there = WholeStream(), offer(a="1")
        stream.ask(Request(("a",)))
        answer = stream.due(there)
        assert answer
        heard = stream.ask(Request(("a",), answer.version, answer.nonce))
        assert (heard.outcome, heard.about) == (Outcome.APPLIED, ("a",))
        assert stream.due(there) is None

    def test_what_was_refused_is_not_sent_again_until_it_changes(self) -> None:
        stream = WholeStream()
        stream.ask(Request(("a",)))
        answer = stream.due(offer(a="1"))
        assert answer
        heard = stream.ask(Request(("a",), "", answer.nonce, "no good"))
        assert (heard.outcome, heard.words, heard.about) == (Outcome.REFUSED, "no good", ("a",))
        assert stream.due(offer(a="1")) is None
        assert told(stream.due(offer(a="2"))) == {"a": "2"}

    def test_a_request_about_an_answer_that_was_overtaken_is_passed_over(self) -> None:
        stream = WholeStream()
        stream.ask(Request(("a",)))
        first, second = stream.due(offer(a="1")), stream.due(offer(a="2"))
        assert first and second
        there = offer(a="2", b="1")
        assert stream.ask(Request(("a", "b"), first.version, first.nonce)).outcome is Outcome.STALE
        assert stream.due(there) is None
        stream.ask(Request(("a", "b"), second.version, second.nonce))
        assert told(stream.due(there)) == {"b": "1"}

    def test_the_first_request_may_come_from_another_stream(self) -> None:
        """It must not, by the protocol; passed over, it would wait for ever."""
        stream = WholeStream()
        assert stream.ask(Request(("a",), "before", "7")).outcome is Outcome.ASKED
        assert told(stream.due(offer(a="1"))) == {"a": "1"}

    def test_what_is_given_up_and_asked_for_again_is_told_again(self) -> None:
        stream, there = WholeStream(), offer(a="1", b="1")
        stream.ask(Request(("a", "b")))
        answer = stream.due(there)
        assert answer
        stream.ask(Request(("b",), answer.version, answer.nonce))
        assert stream.due(there) is None
        stream.ask(Request(("a", "b"), answer.version, answer.nonce))
        assert told(stream.due(there)) == {"a": "1"}

    def test_what_is_not_there_is_waited_for(self) -> None:
        stream = WholeStream()
        stream.ask(Request(("a", "nobody")))
        assert told(stream.due(offer(a="1"))) == {"a": "1"}
        assert stream.due(offer(a="1")) is None
        assert told(stream.due(offer(a="1", nobody="1"))) == {"nobody": "1"}

    def test_who_names_nothing_at_first_gets_everything(self) -> None:
        stream = WholeStream()
        stream.ask(Request())
        answer = stream.due(offer(a="1", default="1"))
        assert told(answer) == {"a": "1"}
        assert told(stream.due(offer(a="1", b="1"))) == {"b": "1"}

    def test_who_named_something_gives_up_all_by_naming_nothing(self) -> None:
        stream = WholeStream()
        stream.ask(Request(("a",)))
        answer = stream.due(offer(a="1"))
        assert answer
        stream.ask(Request((), answer.version, answer.nonce))
        assert stream.due(offer(a="2", b="1")) is None

    def test_a_star_is_everything_and_names_are_besides_it(self) -> None:
        stream = WholeStream()
        stream.ask(Request(("*", "default")))
        assert told(stream.due(offer(a="1", default="1"))) == {"a": "1", "default": "1"}


class TestDelta:
    def test_what_is_asked_for_and_not_there_is_told_as_removed_once(self) -> None:
        stream = DeltaStream()
        stream.ask(DeltaRequest(("a", "nobody")))
        assert changes(stream.due(offer(a="1"))) == {"a": "1", "nobody": None}
        assert stream.due(offer(a="1")) is None
        assert changes(stream.due(offer(a="1", nobody="1"))) == {"nobody": "1"}
        assert changes(stream.due(offer(a="1"))) == {"nobody": None}

    def test_nothing_is_told_as_removed_while_it_may_still_come(self) -> None:
        stream = DeltaStream()
        stream.ask(DeltaRequest(("a", "b")))
        assert changes(stream.due(offer(False, a="1"))) == {"a": "1"}
        assert stream.due(offer(False)) is None
        assert changes(stream.due(offer(a="1"))) == {"b": None}

    def test_who_comes_again_is_told_what_has_changed_meanwhile(self) -> None:
        stream = DeltaStream()
        stream.ask(DeltaRequest(("a", "b", "c"), versions={"a": "1", "b": "1", "c": "1", "d": "1"}))
        assert changes(stream.due(offer(a="1", b="2"))) == {"b": "2", "c": None}

    def test_who_asks_again_is_told_again_though_nothing_has_changed(self) -> None:
        stream, there = DeltaStream(), offer(a="1")
        for _ in range(2):
            stream.ask(DeltaRequest(("a", "nobody")))
            assert changes(stream.due(there)) == {"a": "1", "nobody": None}
            assert stream.due(there) is None

    def test_what_is_given_up_is_told_no_more(self) -> None:
        stream = DeltaStream()
        stream.ask(DeltaRequest(("a", "b")))
        stream.due(offer(a="1", b="1"))
        stream.ask(DeltaRequest(unsubscribe=("a", "never asked for")))
        assert stream.names == {"b"}
        assert changes(stream.due(offer(a="2", b="2"))) == {"b": "2"}

    def test_a_subscription_counts_whatever_nonce_it_comes_with(self) -> None:
        stream, there = DeltaStream(), offer(a="1", b="1")
        stream.ask(DeltaRequest(("a",)))
        first, second = stream.due(there), stream.due(offer(a="2", b="1"))
        assert first and second
        assert stream.ask(DeltaRequest(("b",), nonce=first.nonce)).about == ("a",)
        assert changes(stream.due(offer(a="2", b="1"))) == {"b": "1"}

    def test_what_was_refused_is_not_sent_again_until_it_changes(self) -> None:
        stream = DeltaStream()
        stream.ask(DeltaRequest(("a",)))
        answer = stream.due(offer(a="1"))
        assert answer
        heard = stream.ask(DeltaRequest(nonce=answer.nonce, error="no good"))
        assert (heard.outcome, heard.words, heard.about) == (Outcome.REFUSED, "no good", ("a",))
        assert stream.due(offer(a="1")) is None
        assert changes(stream.due(offer(a="2"))) == {"a": "2"}

    def test_who_subscribes_to_nothing_at_first_gets_everything(self) -> None:
        stream = DeltaStream()
        stream.ask(DeltaRequest())
        assert changes(stream.due(offer(a="1", default="1"))) == {"a": "1"}
        assert changes(stream.due(offer(b="1"))) == {"a": None, "b": "1"}

    def test_a_name_beside_a_star_that_is_given_up_is_told_as_it_is_now(self) -> None:
        stream, there = DeltaStream(), offer(a="1", default="1")
        stream.ask(DeltaRequest(("*", "a", "default")))
        assert changes(stream.due(there)) == {"a": "1", "default": "1"}
        stream.ask(DeltaRequest(unsubscribe=("a", "default")))
        assert changes(stream.due(there)) == {"a": "1", "default": None}
        stream.ask(DeltaRequest(unsubscribe=("*",)))
        assert stream.due(offer(a="2")) is None


@pytest.mark.parametrize(
    "request_",
    [
        Request(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"),
        Request(("n" * 2101,)),
        Request(tuple(map(str, range(MOST_NAMES + 1)))),
    ],
    ids=["clusters", "a long name", "many names"],
)
def test_what_no_envoy_of_the_mesh_would_ask_ends_the_stream(request_: Request) -> None:
    with pytest.raises(Malformed):
        WholeStream().ask(request_)
    with pytest.raises(Malformed):
        DeltaStream().ask(DeltaRequest(request_.names, type_url=request_.type_url))


def test_subscriptions_are_counted_over_all_requests() -> None:
    stream = DeltaStream()
    stream.ask(DeltaRequest(tuple(map(str, range(MOST_NAMES)))))
    stream.ask(DeltaRequest(("one more",), unsubscribe=("0",)))
    with pytest.raises(Malformed, match="at most 1000"):
        stream.ask(DeltaRequest(("0",)))


# A client that does what the protocol says, in any order: whatever was asked, once nothing is due it has just that.

names = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
offers = st.dictionaries(st.sampled_from(NAMES[:4]), st.sampled_from("123"), max_size=4)


class WholeClient(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stream, self.there = WholeStream(), offered({})
        self.wanted: set[str] = set()
        self.has: dict[str, str] = {}
        self.answers: list[Response] = []
        self.has_named = False

    @rule(asked=names, late=st.integers(0, 2), error=st.sampled_from([None, None, "no"]))
    def ask(self, asked: tuple[str, ...], late: int, error: str | None) -> None:
        """About the last answer, or about one before it."""
        about = self.answers[-1 - late] if late < len(self.answers) else None
        nonce = about.nonce if about else ""
        heard = self.stream.ask(Request(asked, nonce=nonce, error=error))
        is_stale = about is not None and late > 0
        assert (heard.outcome is Outcome.STALE) == is_stale
        if not is_stale:
            self.has_named = self.has_named or bool(asked)
            self.wanted = set(asked) if self.has_named else set()
            if self.has_named:
                self.has = {name: version for name, version in self.has.items() if name in asked}

    @rule(versions=offers)
    def change(self, versions: dict[str, str]) -> None:
        self.there = offered(versions)

    @invariant()
    def is_told_all_and_nothing_twice(self) -> None:
        answer = self.stream.due(self.there)
        if answer:
            self.answers.append(answer)
            fresh = told(answer)
            assert all(self.has.get(name) != version for name, version in fresh.items())
            self.has |= fresh
        assert self.stream.due(self.there) is None
        for name in self.wanted:
            found = self.there.get(name)
            assert found is None or self.has[name] == found.version
        if self.has_named:
            assert self.has.keys() <= self.wanted
        nonces = [answer.nonce for answer in self.answers]
        assert len(nonces) == len(set(nonces))


class DeltaClient(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stream, self.there = DeltaStream(), offered({})
        self.stream.ask(DeltaRequest(("default",)))
        self.wanted = {"default"}
        self.has: dict[str, str | None] = {}
        self.nonces: list[str] = []

    @rule(more=names, fewer=names, late=st.integers(0, 2), error=st.sampled_from([None, "no"]))
    def ask(
        self, more: tuple[str, ...], fewer: tuple[str, ...], late: int, error: str | None
    ) -> None:
        nonce = self.nonces[-1 - late] if late < len(self.nonces) else ""
        self.stream.ask(DeltaRequest(more, fewer, nonce=nonce, error=error))
        self.wanted = self.wanted.difference(fewer).union(more)
        for name in (*fewer, *more):
            self.has.pop(name, None)

    @rule(versions=offers, is_whole=st.booleans())
    def change(self, versions: dict[str, str], is_whole: bool) -> None:
        self.there = offered(versions, is_whole)

    @invariant()
    def is_told_all_and_nothing_twice(self) -> None:
        answer = self.stream.due(self.there)
        if answer:
            self.nonces.append(answer.nonce)
            fresh = changes(answer)
            missing = object()
            assert all(self.has.get(name, missing) != version for name, version in fresh.items())
            self.has |= fresh
        assert self.stream.due(self.there) is None
        assert self.stream.names == self.wanted
        assert self.has.keys() <= self.wanted
        for name in self.wanted:
            found = self.there.get(name)
            if found is not None:
                assert self.has[name] == found.version
            elif self.there.is_whole:
                assert self.has[name] is None
        assert len(self.nonces) == len(set(self.nonces))


_settings = settings(
    max_examples=max(30, settings.default.max_examples // 4), stateful_step_count=15
)
TestAnyOrderWhole = WholeClient.TestCase
TestAnyOrderWhole.settings = _settings
TestAnyOrderDelta = DeltaClient.TestCase
TestAnyOrderDelta.settings = _settings


@given(st.binary(max_size=100))
def test_whatever_comes_no_stream_breaks(data: bytes) -> None:
    for kind, stream in ((Request, WholeStream()), (DeltaRequest, DeltaStream())):
        try:
            stream.ask(kind.parse(data))  # type: ignore[attr-defined, arg-type]
        except Malformed:
            continue
        stream.due(offer(a="1"))
