"""The files follow the identity, the roots and the revocations, and whoever uses them is told until it knows."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import LogLevel

from pki.errors import PkiError, Problem
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.x509svid import X509Svid, load_certificates
from tests.authorities import mesh
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.revocation.published import HOUR, Publishing
from twisted_mesh.api.messages import PublishedCrls
from twisted_mesh.files.command import NotTold, Stop
from twisted_mesh.files.keeper import FilesKeeper
from twisted_mesh.files.tellers import KEEPS_FAILING, Part, Teller
from twisted_mesh.files.writer import FilesWriter
from twisted_mesh.identity.agent import Agent
from twisted_mesh.testing import MemoryCa
from twisted_mesh.tls.alerts import Unreachable
from twisted_mesh.trust.trust import Trust

NAMES = {"svid.pem", "svid_key.pem", "svid_bundle.pem", "crl.pem"}
AWAY = Unreachable(Problem("unreachable", "nobody answers", "start it"))


@define(eq=False)
class FakeClient:
    """The CA's CRLs, or none."""

    publishing: Publishing
    away: bool = False
    asked: int = 0

    async def crls(self) -> PublishedCrls:
        self.asked += 1
        if self.away:
            raise AWAY
        return self.publishing.answer()


@define(eq=False)
class Rig:
    """A keeper over what the test says that an agent has."""

    directory: Path
    publishing: Publishing = field(factory=Publishing)
    log: RecordingLog = field(factory=RecordingLog)
    told: list[Mapping[str, str]] = field(factory=list)
    refuses: bool = False
    """Whether telling fails."""
    pending: "list[Deferred[None]]" = field(factory=list)
    is_slow: bool = False
    """Whether what runs on a thread waits for the test."""
    beliefs: list[float] = field(factory=list)
    """When the CA was to hear what is believed."""
    client: FakeClient = field(init=False)
    agent: Any = field(init=False)
    teller: Teller = field(init=False)
    keeper: FilesKeeper = field(init=False)

    def __attrs_post_init__(self) -> None:
        ca = self.publishing.ca
        self.client = FakeClient(self.publishing)
        self.agent = SimpleNamespace(
            svid=None,
            client=self.client,
            wanted=SimpleNamespace(spiffe_id=ca.id("shop")),
            trust_store=SimpleNamespace(trust=Trust(BundleSet.of(ca.bundle), ca.revoked)),
            handing_on=[],
            tell_belief=lambda: self.beliefs.append(self.clock_seconds),
        )
        self.teller = Teller(self.tell, Part("command", "The command was not done", self.log))
        writer = FilesWriter(self.directory)
        writer.take()
        clock = self.publishing.clock
        self.keeper = FilesKeeper(
            cast(Agent, self.agent),
            writer,
            [self.teller],
            clock,
            self.log,
            clock.now,
            defer=self.defer,
            draw=random.Random(7),
        )

    def tell(self, facts: Mapping[str, str], stop: Stop) -> str:
        self.told.append(facts)
        if self.refuses:
            raise NotTold("it ended with status 1")
        return "it was run"

    def defer(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Deferred[Any]":
        if not self.is_slow:
            return maybeDeferred(call, *args, **kwargs)
        waiting: Deferred[None] = Deferred()
        self.pending.append(waiting)
        return waiting.addCallback(lambda _: call(*args, **kwargs))

    @property
    def clock_seconds(self) -> float:
        return self.publishing.clock.seconds()

    def renew(self) -> X509Svid:
        self.agent.svid = self.publishing.ca.issue("shop")
        return cast(X509Svid, self.agent.svid)

    def revoke(self, svid: X509Svid) -> None:
        self.publishing.ca.revoke(svid)
        store = self.agent.trust_store
        store.trust = evolve(store.trust, revocations=self.publishing.ca.revoked)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.2)):
            self.publishing.clock.advance(0.2)

    @property
    def changes(self) -> list[str]:
        return [facts["MESH_CHANGED"] for facts in self.told]

    @property
    def warnings(self) -> int:
        behind = [e for e in self.log.events if e.get("event") == "files-behind"]
        return sum(e["log_level"] is LogLevel.warn for e in behind)

    @property
    def crls(self) -> bytes:
        return (self.directory / "crl.pem").read_bytes()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    made = Rig(tmp_path / "files")
    made.keeper.startService()
    return made


def test_nothing_is_written_before_there_is_an_identity(rig: Rig) -> None:
    rig.pass_time(1)
    assert list(rig.directory.iterdir()) == []
    lack = rig.keeper.lack()
    assert lack is not None
    assert lack.code == "files-behind"


def test_the_first_identity_is_written_whole_and_told(rig: Rig) -> None:
    svid = rig.renew()
    rig.pass_time(0.2)
    assert (rig.directory / "svid.pem").read_bytes() == svid.chain_pem()
    assert (rig.directory / "svid_key.pem").read_bytes() == svid.key.to_pem()
    assert rig.crls.count(b"BEGIN X509 CRL") == 2
    (told,) = rig.told
    assert told["MESH_CHANGED"] == "bundle crl svid"
    assert told["MESH_FILES"] == str(rig.directory)
    assert told["MESH_SPIFFE_ID"] == "spiffe://mesh.test/service/shop"
    assert rig.keeper.lack() is None
    assert rig.log.count("files-written") == rig.log.count("files-told") == 1
    rig.pass_time(10)
    assert len(rig.told) == 1
    assert rig.client.asked == 1


def test_a_renewal_is_written_and_says_that_the_certificate_is_new(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    svid = rig.renew()
    rig.pass_time(0.2)
    assert (rig.directory / "svid.pem").read_bytes() == svid.chain_pem()
    assert rig.changes == ["bundle crl svid", "svid"]


def test_a_revocation_is_on_the_crl_within_two_ticks(rig: Rig) -> None:
    other = rig.publishing.ca.issue("other")
    rig.renew()
    rig.pass_time(0.2)
    before = rig.crls
    rig.revoke(other)
    rig.pass_time(0.4)
    assert rig.crls != before
    assert rig.changes == ["bundle crl svid", "crl"]


def test_a_crl_that_is_behind_the_feed_is_fetched_again_until_it_is_not(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    rig.publishing.is_behind = True
    rig.revoke(rig.publishing.ca.issue("other"))
    rig.pass_time(0.6)
    assert rig.log.count("files-behind") == 0  # that takes a moment as a rule
    rig.pass_time(5)
    assert "is not on the CA's CRLs yet" in rig.log.text("files-behind")
    rig.publishing.is_behind = False
    rig.pass_time(40)
    assert rig.keeper.crls is not None
    assert not rig.keeper.crls.lacks(rig.publishing.ca.revoked, rig.publishing.clock.now())
    assert rig.keeper.troubles() == []


def test_the_crl_of_an_issuing_ca_is_looked_for_before_it_issues(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.4)
    before, store = rig.client.asked, rig.agent.trust_store
    store.trust = evolve(store.trust, beside=(mesh().issuing.certificate,))
    rig.pass_time(0.2)
    assert rig.client.asked == before + 1, "at once"
    rig.pass_time(60)
    assert rig.client.asked == before + 16, "for a moment, as it is made; and not for ever"
    assert rig.keeper.troubles() == []


def test_crls_are_fetched_anew_before_they_end(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    for _ in range(3):
        rig.publishing.clock.advance(0.7 * HOUR.total_seconds())
        rig.pass_time(0.4)
        assert rig.keeper.written is not None
        assert rig.keeper.written.crls.next_update > rig.publishing.clock.now() + HOUR / 2
    assert rig.changes[1:] == ["crl"] * 3


def test_an_identity_is_renewed_while_no_crls_can_be_had(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    crls = rig.crls
    rig.client.away = True
    rig.revoke(rig.publishing.ca.issue("other"))
    svid = rig.renew()
    rig.pass_time(10)
    assert (rig.directory / "svid.pem").read_bytes() == svid.chain_pem()
    assert rig.crls == crls
    assert [name for name, _ in rig.keeper.troubles()] == ["crls"]
    assert rig.warnings == 2  # at once, and when it was known to last
    rig.client.away = False
    rig.pass_time(40)
    assert rig.crls != crls
    assert rig.keeper.troubles() == []
    assert rig.log.count("files-up-to-date") == 1


def test_without_any_crl_there_are_no_files(rig: Rig) -> None:
    rig.client.away = True
    rig.renew()
    rig.pass_time(2)
    assert list(rig.directory.iterdir()) == []
    lack = rig.keeper.lack()
    assert lack is not None
    assert "nobody answers" in lack.detail


def test_other_trust_domains_roots_are_in_a_file_of_their_own_as_long_as_they_are_believed(
    rig: Rig,
) -> None:
    other = MemoryCa(trust_domain="other.test", clock=rig.publishing.clock)
    store, theirs = rig.agent.trust_store, rig.directory / "svid_bundle.other.test.pem"
    alone = store.trust
    store.trust = evolve(alone, bundles=alone.bundles.with_bundle(other.bundle))
    rig.renew()
    rig.pass_time(0.2)
    roots = load_certificates((rig.directory / "svid_bundle.pem").read_bytes())
    assert roots == rig.publishing.ca.bundle.roots
    assert load_certificates(theirs.read_bytes()) == other.bundle.roots
    store.trust = alone
    rig.pass_time(0.2)
    assert not theirs.is_symlink()
    assert rig.changes == ["bundle crl svid", "bundle"]


def test_keys_for_tokens_are_not_in_the_files_and_change_none_of_them(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    authority = JwtAuthority.of(MemoryKey.generate(KeyAlgorithm.EC_P256).public_key)  # type: ignore[arg-type]
    store, bundle = rig.agent.trust_store, rig.publishing.ca.bundle
    with_key = evolve(bundle, sequence=9, jwt_authorities=(authority,))
    store.trust = evolve(store.trust, bundles=BundleSet.of(with_key))
    rig.pass_time(0.2)
    roots = load_certificates((rig.directory / "svid_bundle.pem").read_bytes())
    assert roots == bundle.roots
    assert rig.changes == ["bundle crl svid"]


def test_new_roots_are_written(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    ca = rig.publishing.ca
    later = MemoryCa(clock=rig.publishing.clock)
    both = evolve(ca.bundle, roots=(*ca.bundle.roots, *later.bundle.roots))
    store = rig.agent.trust_store
    store.trust = evolve(store.trust, bundles=BundleSet.of(both))
    rig.pass_time(0.2)
    assert len(load_certificates((rig.directory / "svid_bundle.pem").read_bytes())) == 2
    assert rig.changes == ["bundle crl svid", "bundle"]


def test_who_could_not_be_told_is_told_again_of_all_that_has_changed(rig: Rig) -> None:
    rig.refuses = True
    rig.renew()
    rig.pass_time(0.2)
    rig.renew()
    rig.pass_time(10)
    assert rig.teller.part.failures >= KEEPS_FAILING
    ((name, problem),) = rig.keeper.troubles()
    assert (name, problem.detail) == ("command", "it ended with status 1")
    assert rig.keeper.lack() is None  # the files are there
    attempts = len(rig.told)
    assert 3 <= attempts < 12  # with longer and longer pauses
    rig.refuses = False
    rig.pass_time(40)
    assert len(rig.told) == attempts + 1
    assert rig.changes[-1] == "bundle crl svid"
    assert rig.keeper.troubles() == []


def test_nothing_is_written_while_somebody_is_being_told(rig: Rig) -> None:
    first = rig.renew()
    rig.pass_time(0.2)
    rig.renew()
    rig.is_slow = True
    rig.pass_time(0.2)  # writing, on a thread
    rig.pending.pop().callback(None)
    assert len(rig.pending) == 1  # telling
    third = rig.renew()
    rig.pass_time(5)
    told = (rig.directory / "svid.pem").read_bytes()
    assert told not in (first.chain_pem(), third.chain_pem())
    rig.is_slow = False
    rig.pending.pop().callback(None)
    rig.pass_time(0.4)
    assert (rig.directory / "svid.pem").read_bytes() == third.chain_pem()


def test_a_directory_that_cannot_be_written_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.renew()
    rig.pass_time(0.2)

    def full(*args: Any) -> None:
        raise NotTold("no space")

    with monkeypatch.context() as broken:
        broken.setattr(FilesWriter, "write", full)
        rig.renew()
        rig.pass_time(10)
        assert [name for name, _ in rig.keeper.troubles()] == ["files"]
        assert rig.changes == ["bundle crl svid"]
    rig.pass_time(40)
    assert rig.keeper.troubles() == []
    assert rig.changes == ["bundle crl svid", "svid"]


def test_a_bug_is_tried_again_and_logged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as context:
        context.setattr(FilesWriter, "write", broken)
        rig.renew()
        rig.pass_time(1)
    assert rig.log.count("files-broke") >= 1
    rig.pass_time(10)
    assert {path.name for path in rig.directory.iterdir()} > NAMES


def test_stopping_lets_the_directory_go_and_the_files_stay(rig: Rig) -> None:
    rig.renew()
    rig.pass_time(0.2)
    stopped = rig.keeper.stopService()
    assert stopped.called
    other = FilesWriter(rig.directory)
    other.take()
    other.release()
    assert {path.name for path in rig.directory.iterdir()} > NAMES


def test_stopping_waits_for_a_command_and_then_ends_it(rig: Rig) -> None:
    seen: list[Stop] = []

    def tell(facts: Mapping[str, str], stop: Stop) -> str:
        seen.append(stop)
        return "it was run"

    rig.teller.way = tell
    rig.renew()
    rig.is_slow = True
    rig.pass_time(0.2)
    rig.pending.pop().callback(None)  # the CRLs are read
    rig.pending.pop().callback(None)  # the files are written
    assert rig.keeper.written is not None
    stopped = rig.keeper.stopService()
    assert not stopped.called
    rig.pass_time(11)
    assert rig.keeper._stop._writer == -1  # it has been told to end
    rig.pending.pop().callback(None)
    assert stopped.called
    assert len(seen) == 1


def test_a_part_tells_its_trouble_once(rig: Rig) -> None:
    part = Part("files", "The files are not up to date", rig.log, random.Random(7))
    for attempt in range(6):
        part.failed(PkiError("the same"), float(attempt))
    assert rig.warnings == 2
    part.failed(PkiError("another"), 7.0)
    assert rig.warnings == 3


def test_the_ca_hears_of_a_bundle_once_those_have_it_who_read_the_files(rig: Rig) -> None:
    (has_it,) = rig.agent.handing_on
    store = rig.agent.trust_store
    (bundle,) = store.trust.bundles
    assert not has_it(bundle), "nothing is written yet"
    rig.renew()
    rig.pass_time(1)
    assert has_it(bundle)
    assert rig.beliefs == []
    both = TrustBundle(bundle.trust_domain, (*bundle.roots, mesh().root.certificate))
    rig.is_slow = True
    store.trust = evolve(store.trust, bundles=BundleSet.of(both))
    rig.pass_time(1)
    assert not has_it(both) and rig.beliefs == []
    rig.is_slow = False
    for waiting in rig.pending:
        waiting.callback(None)
    rig.pass_time(1)
    assert has_it(both) and len(rig.beliefs) == 1


def test_another_path_of_the_same_certificate_is_written(rig: Rig) -> None:
    svid = rig.renew()
    rig.pass_time(1)
    rig.agent.svid = evolve(svid)
    rig.pass_time(1)
    assert rig.changes[-1] == "svid"
