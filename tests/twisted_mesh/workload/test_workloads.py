"""What the processes of a machine are told, when, and why not: real callers, an issuer of the test's."""

import errno
import os
import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from pki.codes import Code
from pki.errors import PkiError
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from tests.authorities import MESH, OTHER, mesh
from tests.pki.jwt_svid.tokens import KEY, OTHER_KEY, jwks, token
from tests.twisted_mesh.attest.processes import (
    Transport,
    calling,
    only_linux,
    outcome,
    process_attestor,
)
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.workload.fake_issuer import FakeIssuer, Told, Turning, entry
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.attest import handle
from twisted_mesh.attest.handle import NoDescriptors
from twisted_mesh.limits.rate_limit import RateLimited
from twisted_mesh.workload import held_svids, workloads
from twisted_mesh.workload.caller import Caller, CallerGone, Callers
from twisted_mesh.workload.interface import Bundles
from twisted_mesh.workload.rights import Rights
from twisted_mesh.workload.workloads import AgentOut, Workloads

pytestmark = only_linux
US = f"unix:uid:{os.geteuid()}"


class CaAway(PkiError):
    code = Code.UNREACHABLE


@define(eq=False)
class Machine:
    """Workloads, and callers that are this very process."""

    reactor: Turning = field(factory=Turning)
    issuer: FakeIssuer = field(init=False)
    workloads: Workloads = field(init=False)
    _sockets: list[socket.socket] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.issuer = FakeIssuer(self.reactor)
        callers = Callers(process_attestor(), self.reactor)
        self.workloads = Workloads(self.issuer, callers, self.reactor, self.reactor.now)
        self.workloads.start()

    def caller(self) -> Caller:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self._sockets += [ours, theirs]
        found = outcome(self.workloads.caller(Transport(ours)))
        assert isinstance(found, Caller)
        return found

    def follow(self, caller: Caller | None = None) -> Told:
        told = Told()
        self.workloads.follow(caller or self.caller(), told)
        return told

    def close(self) -> None:
        self.workloads.stop()
        for one in self._sockets:
            one.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


def test_whoever_an_entry_lets_in_is_told_its_svid_and_the_bundles(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("web", US)])
    told = machine.follow()
    assert told.ids == ["/service/web"]
    assert told.last.bundles is machine.issuer.now_sources.bundles
    assert told.last.refusal is None


def test_all_processes_of_an_entry_share_one_svid(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("web", US)])
    first, second = machine.follow(), machine.follow()
    assert first.last.svids[0].svid is second.last.svids[0].svid
    assert len(machine.issuer.asked) == 1


def test_a_template_buys_each_user_his_own(machine: Machine) -> None:
    template = f"spiffe://{MESH}/user/{{unix.uid}}"
    machine.issuer.say(entries=[entry("all", US, spiffe_id=template)])
    assert machine.follow().ids == [f"/user/{os.geteuid()}"]


def test_several_entries_come_in_their_order(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("b", US), entry("x", "unix:uid:4242"), entry("a", US)])
    assert machine.follow().ids == ["/service/b", "/service/a"]


def test_the_first_answer_waits_until_it_is_whole(machine: Machine) -> None:
    machine.issuer.waits = True
    machine.issuer.say(entries=[entry("a", US), entry("b", US)])
    told = machine.follow()
    assert told.snapshots == []
    machine.issuer.waiting.pop(0).callback(None)
    assert told.snapshots == []
    machine.issuer.answer()
    assert told.ids == ["/service/a", "/service/b"]
    assert len(told.snapshots) == 1


def test_one_entry_that_the_ca_refuses_does_not_keep_the_other_back(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.trouble = CaAway("no")
    machine.issuer.say(entries=[entry("a", US), entry("b", US)])
    assert told.ids == ["/service/a"]


def test_an_entry_reaches_who_follows_at_once(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.say(entries=[entry("a", US), entry("b", US)])
    assert told.ids == ["/service/a", "/service/b"]


def test_an_entry_that_goes_ends_its_streams_and_its_key(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.say(entries=[])
    assert told.refused[0]
    assert "no identity issued" in told.refused[1]
    assert len(machine.workloads.svids) == 0


def test_an_entry_that_comes_again_buys_another_key(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    first = told.last.svids[0].svid
    machine.issuer.say(entries=[])
    machine.issuer.say(entries=[entry("a", US)])
    assert told.last.svids[0].svid.leaf != first.leaf


def test_an_entry_that_says_something_else_is_asked_anew(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    first = told.last.svids[0].svid
    machine.issuer.say(entries=[evolve(entry("a", US), comment="only words")])
    machine.reactor.advance(1)
    assert told.last.svids[0].svid is first
    machine.issuer.say(entries=[entry("a", US, ttl="5m")])
    assert told.last.svids[0].svid is first
    machine.reactor.advance(1)
    assert told.last.svids[0].svid is not first


def test_who_is_let_in_by_none_is_told_what_was_seen_and_what_came_nearest(
    machine: Machine,
) -> None:
    machine.issuer.say(
        entries=[
            entry("far", "unix:uid:4242", "unix:user:nobody"),
            entry("near", US, "systemd:unit:web.service"),
        ]
    )
    is_final, why = machine.follow().refused
    assert is_final
    assert f"seen: {', '.join(sorted(map(str, machine.caller().selectors)))}" in why
    assert "the entry near comes nearest: it wants systemd:unit:web.service too" in why
    assert f"mesh-ctl why --agent node-1 --selector unix:gid:{os.getegid()}" in why


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (f"spiffe://{MESH}/unit/{{systemd.unit}}", "has no value"),
        (f"spiffe://{MESH}/service/*", "no single ID"),
    ],
    ids=["unfilled", "pattern"],
)
def test_an_entry_of_no_single_id_says_so(machine: Machine, template: str, why: str) -> None:
    machine.issuer.say(entries=[entry("many", US, spiffe_id=template)])
    is_final, told = machine.follow().refused
    assert is_final
    assert why in told


def test_without_any_entry_it_says_so(machine: Machine) -> None:
    assert "no entry at all" in machine.follow().refused[1]


def test_a_process_of_very_many_groups_is_told_what_else_was_seen() -> None:
    groups = {Selector("unix:gid", str(number)) for number in range(1000)}
    seen = frozenset({Selector("unix:uid", "7"), Selector("unix:user", "web"), *groups})
    text = str(Rights([entry("a", "unix:uid:8")], "node-1").refusal(seen))
    assert len(text) < 1500
    assert "unix:user:web and 986 groups more; the entry a comes nearest" in text
    assert "--selector unix:uid:7 --selector unix:user:web" in text


def test_a_bundle_that_changes_is_told_at_once(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.waits = True
    next_one = Bundles(MESH, BundleSet.of(evolve(mesh().bundle, sequence=7)))
    machine.issuer.say(bundles=next_one, entries=[entry("a", US), entry("b", US)])
    assert told.last.bundles is next_one
    assert told.ids == ["/service/a"]


def test_another_trust_domain_is_for_those_whose_entry_federates_with_it(machine: Machine) -> None:
    third = TrustDomain("third.example")
    bundles = Bundles(
        MESH,
        BundleSet.of(mesh().bundle, mesh(OTHER).bundle, mesh(third).bundle),
        {MESH: b"ours", OTHER: b"theirs", third: b"others"},
    )
    plain, federating = entry("a", US), evolve(entry("b", US), federates_with=(OTHER,))
    machine.issuer.say(bundles=bundles, entries=[plain])
    told = machine.follow()
    assert told.last.bundles == Bundles(MESH, BundleSet.of(mesh().bundle), {MESH: b"ours"})
    # It is given to who follows already, and what no entry of his federates with is not.
    machine.issuer.say(entries=[plain, federating])
    assert told.last.bundles is not None
    assert set(told.last.bundles.x509.bundles) == set(told.last.bundles.jwks) == {MESH, OTHER}
    assert told.ids == ["/service/a", "/service/b"]
    machine.issuer.say(entries=[plain, evolve(federating, federates_with=())])
    assert told.last.bundles is not None
    assert set(told.last.bundles.x509.bundles) == {MESH}
    assert told.ids == ["/service/a", "/service/b"]


def test_nothing_is_told_twice(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.say(entries=[entry("a", US)])
    machine.issuer.say(bundles=evolve(machine.issuer.now_sources.bundles))
    machine.reactor.advance(60)
    assert len(told.snapshots) == 1


def test_it_is_renewed_around_half_of_its_life_and_told(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    first = told.last.svids[0].svid
    machine.reactor.pump([60.0] * 27)
    assert told.last.svids[0].svid is first
    machine.reactor.pump([60.0] * 6)
    second = told.last.svids[0].svid
    assert second.leaf != first.leaf
    assert second.key is not first.key
    assert len(told.snapshots) == 2


def test_it_is_not_renewed_for_nobody_and_forgotten_after_a_while(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = Told()
    machine.workloads.follow(machine.caller(), told).stop()
    machine.reactor.advance(held_svids.KEPT_FOR - 1)
    assert machine.follow().last.svids[0].svid is told.last.svids[0].svid
    for following in tuple(machine.workloads._following):
        following.stop()
        following.stop()
    machine.reactor.advance(held_svids.KEPT_FOR)
    assert len(machine.workloads.svids) == 0
    assert len(machine.issuer.asked) == 1
    machine.follow()
    assert len(machine.issuer.asked) == 2


def test_what_is_asked_for_nobody_any_more_is_called_off(machine: Machine) -> None:
    machine.issuer.waits = True
    machine.issuer.say(entries=[entry("a", US)])
    machine.workloads.follow(machine.caller(), Told()).stop()
    machine.reactor.advance(1)
    assert len(machine.workloads.svids) == 0
    assert machine.issuer.waiting[0].called


def test_while_the_ca_is_away_what_is_valid_stays_and_then_it_is_unavailable(
    machine: Machine,
) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.trouble = CaAway("the CA at https://ca.test gave no answer")
    machine.issuer.say(problem=machine.issuer.trouble)
    machine.reactor.pump([30.0] * 118)
    assert len(told.snapshots) == 1
    assert machine.follow().ids == ["/service/a"]
    machine.reactor.pump([30.0] * 4)
    is_final, why = told.refused
    assert not is_final
    assert "https://ca.test" in why
    machine.issuer.trouble = None
    machine.issuer.say(problem=None)
    assert told.ids == ["/service/a"]


def test_while_the_ca_is_away_nobody_is_told_for_good(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", "unix:uid:4242")], problem=CaAway("no answer"))
    is_final, why = machine.follow().refused
    assert not is_final
    assert "no answer" in why
    assert "unix:uid:4242" in why


def test_before_the_first_answer_of_the_ca_it_waits_and_then_is_unavailable(
    machine: Machine,
) -> None:
    machine.issuer.say(bundles=None)
    told = machine.follow()
    assert told.snapshots == []
    machine.issuer.say(problem=CaAway("no answer yet"))
    assert told.refused == (False, "no answer yet")


def test_a_banned_agent_has_nothing_more_for_anybody(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.say(problem=CaAway("this agent was banned"), is_over=True)
    assert told.refused == (True, "this agent was banned")
    assert told.last.bundles is None
    assert len(machine.workloads.svids) == 0
    with pytest.raises(CaAway, match="banned"):
        outcome(machine.workloads.jwt_svids(machine.caller(), ["x"], None))


def test_an_agent_whose_certificate_was_revoked_withdraws_all_and_may_come_again(
    machine: Machine,
) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.say(entries=[], problem=CaAway("the agent's certificate was revoked"))
    assert not told.refused[0]
    assert "revoked" in told.refused[1]
    machine.issuer.say(entries=[entry("a", US)], problem=None)
    assert told.ids == ["/service/a"]


def test_a_failure_is_tried_again_after_a_pause(machine: Machine) -> None:
    machine.issuer.trouble = CaRefused(503, CaAway("later").problems)
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    assert not told.refused[0]
    assert "spiffe://mesh.local/service/a is this process's" in told.refused[1]
    machine.issuer.trouble = None
    machine.reactor.advance(1)
    assert told.ids == ["/service/a"]


def test_a_process_that_exits_ends_its_stream_at_once(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    with calling() as process:
        caller = outcome(machine.workloads.caller(Transport(process.connected)))
        assert isinstance(caller, Caller)
        told = machine.follow(caller)
        assert told.ids == ["/service/a"]
        process.exit()
        machine.reactor.turn()
        assert told.refused[0]
        assert told.last.bundles is None
        with pytest.raises(CallerGone):
            outcome(machine.workloads.jwt_svids(caller, ["x"], None))


def test_a_process_that_execs_gets_nothing_more(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    with calling(then="become") as process:
        caller = outcome(machine.workloads.caller(Transport(process.connected)))
        assert isinstance(caller, Caller)
        told = machine.follow(caller)
        process.become()
        machine.reactor.advance(5)
        assert told.refused[0]
        assert "another program" in told.refused[1]


def test_without_a_descriptor_to_look_with_nobody_is_said_to_be_gone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be told to stop for good, by a lack of ours that may be over in a moment."""
    read_file, lack = handle.read_file, list[OSError]()

    def read(path: str) -> bytes:
        for error in lack:
            raise error
        return read_file(path)

    monkeypatch.setattr(handle.ProcessHandle.__init__, "__defaults__", (None, read))
    machine.issuer.say(entries=[entry("a", US)])
    told, unheard, caller = machine.follow(), Told(), machine.caller()
    lack.append(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    machine.workloads.follow(caller, unheard)
    machine.issuer.say(entries=[entry("a", US), entry("b", US)])
    machine.reactor.advance(5)
    with pytest.raises(NoDescriptors, match="Too many open files"):
        outcome(machine.workloads.jwt_svids(caller, ["x"], None))
    assert not unheard.snapshots
    assert told.ids == ["/service/a"]
    lack.clear()
    machine.reactor.advance(5)
    assert unheard.ids == told.ids == ["/service/a", "/service/b"]


def test_who_cannot_be_watched_for_lack_of_a_descriptor_is_asked_to_come_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    caller = machine.caller()

    def none_left(connected: object) -> None:
        raise NoDescriptors("Too many open files")

    with monkeypatch.context() as lacking:
        lacking.setattr(handle.ProcessHandle, "of_peer", none_left)
        refusal = machine.follow(caller).last.refusal
    assert refusal is not None
    assert (refusal.is_final, refusal.is_last) == (False, True)
    assert machine.workloads.streams == 0
    assert machine.follow(caller).ids == ["/service/a"]


def test_streams_of_one_process_and_of_one_user_have_bounds(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    machine.workloads.most_of_process, machine.workloads.most_of_user = 2, 3
    first = machine.workloads.follow(machine.caller(), Told())
    machine.follow()
    is_final, why = machine.follow().refused
    assert not is_final
    assert "this process has 2 streams open" in why
    assert (refusal := machine.follow().last.refusal) is not None
    assert refusal.is_last
    with calling() as process:
        other = outcome(machine.workloads.caller(Transport(process.connected)))
        assert isinstance(other, Caller)
        assert machine.follow(other).ids == ["/service/a"]
        assert f"user {os.geteuid()} have 3" in machine.follow(other).refused[1]
        first.stop()
        assert machine.follow(other).ids == ["/service/a"]


def test_tokens_are_shared_until_half_of_their_life(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US), entry("b", US)])
    caller = machine.caller()
    both = outcome(machine.workloads.jwt_svids(caller, ["x"], None))
    assert [one.spiffe_id.name for one in both] == ["a", "b"]
    one = MESH.member("service", "b")
    assert outcome(machine.workloads.jwt_svids(machine.caller(), ["x"], one)) == [both[1]]
    outcome(machine.workloads.jwt_svids(caller, ["y"], one))
    machine.reactor.advance(151)
    outcome(machine.workloads.jwt_svids(caller, ["x"], one))
    assert machine.issuer.tokens == [
        ("a", ("x",)),
        ("b", ("x",)),
        ("b", ("y",)),
        ("b", ("x",)),
    ]


def test_a_token_whose_key_was_taken_out_of_the_bundle_is_not_given_out_again(
    machine: Machine,
) -> None:
    bundles = machine.issuer.sources().bundles
    assert bundles is not None
    with_key = evolve(bundles, jwks={MESH: jwks(KEY, OTHER_KEY)})
    machine.issuer.say(entries=[entry("a", US)], bundles=with_key)
    machine.issuer.signed = token()
    caller = machine.caller()
    for _ in range(2):
        outcome(machine.workloads.jwt_svids(caller, ["x"], None))
    assert len(machine.issuer.tokens) == 1
    machine.issuer.say(bundles=evolve(bundles, jwks={MESH: jwks(OTHER_KEY)}))
    machine.issuer.signed = token(key=OTHER_KEY)
    for _ in range(2):
        (found,) = outcome(machine.workloads.jwt_svids(caller, ["x"], None))
        assert found.token == machine.issuer.signed
    assert len(machine.issuer.tokens) == 2


def test_tokens_of_an_entry_that_goes_are_forgotten(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    caller = machine.caller()
    outcome(machine.workloads.jwt_svids(caller, ["x"], None))
    machine.issuer.say(entries=[])
    assert len(machine.workloads.tokens) == 0
    with pytest.raises(PkiError, match="no identity issued"):
        outcome(machine.workloads.jwt_svids(caller, ["x"], None))


@pytest.mark.parametrize("lost", ["entry", "agent"])
def test_a_token_that_comes_after_the_right_went_is_neither_handed_out_nor_kept(
    machine: Machine, lost: str
) -> None:
    issuer = machine.issuer
    issuer.say(entries=[entry("a", US)])
    issuer.waits = True
    asked = Deferred.fromCoroutine(machine.workloads.jwt_svids(machine.caller(), ["x"], None))
    if lost == "entry":
        issuer.say(entries=[])
    else:
        issuer.say(problem=AgentOut("it is banned"), is_over=True)
    issuer.answer()
    with pytest.raises(PkiError, match="no identity issued" if lost == "entry" else "it is banned"):
        asked.result.raiseException()
    asked.addErrback(lambda _: None)
    assert len(machine.workloads.tokens) == 0


def test_a_crowd_that_leaves_before_its_turn_takes_nobody_elses(machine: Machine) -> None:
    """Each of them gives its turn to the next at once: not one within the other, until turns are lost."""
    machine.issuer.waits = True
    machine.issuer.say(entries=[entry(f"e{number}", US) for number in range(1000)])
    following = machine.workloads.follow(machine.caller(), Told())
    assert len(machine.issuer.waiting) == held_svids.AT_ONCE
    following.stop()
    machine.issuer.answer()
    machine.issuer.waits = False
    machine.issuer.say(entries=[entry("new", US)])
    assert machine.follow().ids == ["/service/new"]
    assert machine.workloads.svids._turns.tokens == held_svids.AT_ONCE


def test_who_asks_in_a_loop_does_not_fill_the_log(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RecordingLog()
    monkeypatch.setattr(workloads, "_log", log)
    caller = machine.caller()
    for _ in range(200):
        machine.workloads.follow(caller, Told()).stop()
    shown = [event for event in log.events if event["log_level"] is LogLevel.info]
    assert len(shown) == 60
    assert log.count("workload-refused") == 200


def test_a_token_of_another_id_is_refused_with_the_reason(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    other = SpiffeId.parse("spiffe://mesh.local/service/other")
    with pytest.raises(PkiError):
        outcome(machine.workloads.jwt_svids(machine.caller(), ["x"], other))
    assert machine.issuer.tokens == []


def test_audiences_without_end_are_not_signed_for(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    caller = machine.caller()
    for number in range(machine.workloads.tokens.rate.burst):
        outcome(machine.workloads.jwt_svids(caller, [f"audience {number}"], None))
    with pytest.raises(RateLimited):
        outcome(machine.workloads.jwt_svids(caller, ["one more"], None))


def test_a_certificate_for_another_id_is_never_handed_out(machine: Machine) -> None:
    wrong = evolve(entry("a", US), spiffe_id=entry("b", US).spiffe_id)
    issue = machine.issuer.issue

    async def mistaken(found: object, selectors: frozenset[Selector], algorithm: object) -> object:
        return await issue(wrong, selectors, algorithm)  # type: ignore[arg-type]

    machine.issuer.issue = mistaken  # type: ignore[method-assign, assignment]
    machine.issuer.say(entries=[entry("a", US)])
    assert "certified spiffe://mesh.local/service/b" in machine.follow().refused[1]


def test_an_svid_that_is_revoked_is_replaced_at_once(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    first = told.last.svids[0].svid
    machine.issuer.revoked.append(first)
    machine.issuer.say(revocations=object())
    assert told.last.svids[0].svid is not first
    assert len(told.snapshots) == 2


def test_an_svid_that_is_revoked_and_cannot_be_replaced_is_withdrawn(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.issuer.revoked.append(told.last.svids[0].svid)
    machine.issuer.trouble = CaAway("no answer")
    machine.issuer.say(revocations=object())
    assert not told.refused[0]
    machine.issuer.trouble = None
    machine.reactor.advance(1)
    assert told.ids == ["/service/a"]


def test_a_short_life_is_renewed_in_time(machine: Machine) -> None:
    machine.issuer.lifetime = timedelta(seconds=10)
    machine.issuer.say(entries=[entry("a", US)])
    told = machine.follow()
    machine.reactor.pump([0.5] * 60)
    assert len(told.snapshots) >= 5
    assert all(snapshot.svids for snapshot in told.snapshots)


def test_another_path_reaches_every_stream_at_once_and_signs_nothing(machine: Machine) -> None:
    machine.issuer.say(entries=[entry("web", US), entry("api", US)])
    streams = [machine.follow() for _ in range(3)]
    before = streams[0].last.svids[0].svid
    machine.issuer.path = (mesh(OTHER).issuing.certificate,)
    machine.issuer.say(paths=object())
    for told in streams:
        assert len(told.snapshots) == 3, "one for each of its two certificates"
        for one in told.last.svids:
            assert one.svid.intermediates == machine.issuer.path
    moved = streams[0].last.svids[0].svid
    assert (moved.leaf, moved.key) == (before.leaf, before.key)
    assert len(machine.issuer.asked) == 2
    machine.issuer.say(paths=object())
    assert len(streams[0].snapshots) == 3, "nothing has changed"


def test_a_fresh_certificate_comes_by_the_path_that_is_told(machine: Machine) -> None:
    machine.issuer.path = (mesh(OTHER).issuing.certificate,)
    machine.issuer.say(entries=[entry("web", US)])
    assert machine.follow().last.svids[0].svid.intermediates == machine.issuer.path
