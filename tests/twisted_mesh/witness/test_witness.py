"""A witness: what it cosigns, what not, what it has written before it answers, and what contradicts it."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred

from pki.codes import Code
from pki.ct.evidence import RolledBack, SplitView, parse_evidence
from pki.ct.log_list import LogList
from pki.ct.tree_head import WitnessKey, cosignatures_of, open_note, with_signatures
from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from pki.tlog import merkle
from pki.tlog.note import Note, read_signatures
from tests.authorities import key
from tests.twisted_mesh.ct.paper_log import NOW, PaperLog, served
from tests.twisted_mesh.federation.hostile import answer, ok, reactor, serving
from tests.twisted_mesh.grpc.sockets import run, turn_until
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.ct.evidence_files import EvidenceFiles
from twisted_mesh.ct.transport import LogTransport
from twisted_mesh.http.https_client import WebUrl
from twisted_mesh.witness.comparison import Comparison
from twisted_mesh.witness.record import Record
from twisted_mesh.witness.request import AddCheckpoint
from twisted_mesh.witness.service import SIZE_TYPE, Reply, Witness


@define(eq=False)
class Place:
    """A witness, that may be started again and again."""

    home: Path
    paper: PaperLog
    name: str = "w1"
    at: datetime = NOW
    log: RecordingLog = field(factory=RecordingLog)
    record: Record = field(init=False)
    witness: Witness = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.record = Record(self.home / "witness.db")
        self.record.open(self.name)
        self.witness = Witness(
            self.name,
            key(f"the witness {self.name}", KeyAlgorithm.ED25519),
            self.record,
            lambda: LogList((self.paper.log,)),
            EvidenceFiles(self.home / "evidence", self.log),
            lambda: self.at,
            maybeDeferred,  # type: ignore[arg-type]
            self.log,
        )
        self.witness.load()

    def body(self, old: int, proof: Sequence[bytes] = (), note: str = "") -> bytes:
        found = AddCheckpoint.parse(f"old 0\n\n{note or self.paper.note}".encode())
        return AddCheckpoint(old, tuple(proof), found.note, found.head).to_bytes()

    def ask(self, old: int, proof: Sequence[bytes] = (), note: str = "") -> Reply:
        return run(self.witness.add_checkpoint(self.body(old, proof, note)))

    def proof(self, old: int) -> Sequence[bytes]:
        return merkle.consistency_proof(old, len(self.paper.entries), self.paper._read)

    def grow(self, count: int = 5, what: bytes = b"entry") -> Reply:
        """The log grows, and asks as it should."""
        old = len(self.paper.entries)
        self.paper.fill(count, what)
        self.paper.tick()
        self.paper.sign()
        return self.ask(old, self.proof(old) if old else ())

    @property
    def size(self) -> int:
        head = self.witness.head_of(self.paper.log.origin)
        return 0 if head is None else head.head.size

    def evidence(self) -> list[Any]:
        paths = sorted((self.home / "evidence").glob("*.json"))
        return [parse_evidence(path.read_bytes()) for path in paths]

    def codes(self) -> list[Code]:
        logs = LogList((self.paper.log,))
        return [one.verify(logs).code for one in self.evidence()]

    def cosigned_at(self, reply: Reply) -> int:
        assert reply.status == 200
        (line,) = read_signatures(reply.body.decode())
        note = with_signatures(self.paper.note, (line,))
        (cosigned,) = cosignatures_of(note, (self.witness.public,))
        return cosigned.timestamp


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    paper = PaperLog("witnessed")
    with served(paper):
        paper.sign()
        found = Place(tmp_path / "w1", paper)
        yield found
        found.record.close()


def test_what_extends_what_it_saw_is_cosigned(place: Place) -> None:
    for size in (5, 10, 15):
        assert place.cosigned_at(place.grow()) == int(NOW.timestamp())
        assert place.size == size
    assert WitnessKey.parse(str(place.witness.public)) == place.witness.public
    # The same once more: a newer time.
    place.at = NOW.replace(minute=30)
    assert place.cosigned_at(place.ask(15)) == int(place.at.timestamp())
    # A clock that was put back says of nothing that it was earlier.
    before, place.at = place.at, NOW
    assert place.cosigned_at(place.ask(15)) == int(before.timestamp())


def test_whoever_does_not_know_the_size_is_told(place: Place) -> None:
    place.grow()
    place.grow()
    for old in (0, 5, 7):
        reply = place.ask(old)
        assert (reply.status, reply.body, reply.content_type) == (409, b"10\n", SIZE_TYPE)
    assert place.ask(11).status == 400


def test_the_statuses_are_those_of_the_specification(place: Place) -> None:
    place.grow()
    assert run(place.witness.add_checkpoint(b"words")).status == 400
    other = PaperLog("unknown")
    other.fill(3)
    assert place.ask(0, note=other.sign()).status == 404
    assert place.ask(5, note=place.paper.note.replace("\n5\n", "\n6\n")).status == 403
    place.paper.fill(5)
    place.paper.sign()
    proof = place.proof(5)
    for wrong in (proof[:-1], (), (*proof, bytes(32))):
        assert place.ask(5, wrong).status == 422
    assert place.ask(5, proof).status == 200
    assert place.ask(10, (bytes(32),)).status == 422
    assert not place.evidence()


def test_where_nothing_was_seen_there_is_no_proof(place: Place) -> None:
    place.paper.fill(5)
    place.paper.sign()
    assert place.ask(0, (bytes(32),)).status == 422
    assert place.ask(3).status == 409
    assert place.ask(0).status == 200


def test_it_is_on_the_disk_before_anybody_hears_of_it(place: Place) -> None:
    place.grow()
    waiting: list[tuple[Deferred[Any], Any]] = []

    def on_thread(call: Any, *args: Any) -> Any:
        waiting.append((Deferred(), lambda: call(*args)))
        return waiting[-1][0]

    place.witness.on_thread = on_thread
    place.paper.fill(1)
    place.paper.sign()
    body = place.body(5, place.proof(5))
    asking = Deferred.fromCoroutine(place.witness.add_checkpoint(body))
    again = Deferred.fromCoroutine(place.witness.add_checkpoint(body))
    assert not asking.called and len(waiting) == 1
    done, write = waiting[0]
    write()
    assert not asking.called
    with sqlite3.connect(place.record.path) as other:
        assert other.execute("SELECT size FROM heads").fetchall() == [(6,)]
    done.callback(None)
    assert run(asking).status == 200
    # Who asks at the same time is compared with what was cosigned meanwhile.
    assert run(again).status == 409
    place.record.close()
    place.start()
    assert place.size == 6


def test_what_cannot_be_written_is_not_cosigned(place: Place) -> None:
    place.grow()
    place.record.close()
    assert place.grow().status == 503
    assert place.witness.problem is not None and place.log.count("witness-not-kept") == 1
    assert place.size == 5
    place.record.open(place.name)
    assert place.ask(5, place.proof(5)).status == 200 and place.witness.problem is None


def test_two_roots_of_one_size_are_kept_as_evidence(place: Place) -> None:
    fork = place.paper.fork()
    place.grow()
    fork.fill(5, b"another")
    fork.tick()
    assert place.ask(5, note=fork.sign()).status == 409
    assert place.codes() == [Code.CT_LOG_FORKED]
    (found,) = place.evidence()
    assert isinstance(found, SplitView)
    assert place.log.count("ct-alarm") == 1


def test_a_later_head_that_is_smaller_is_kept_as_evidence(place: Place) -> None:
    place.grow()
    old = place.paper.note
    place.grow()
    assert place.ask(5, note=old).status == 409 and not place.evidence()
    place.paper.tick()
    back = place.paper.sign(size=5)
    assert place.ask(5, note=back).status == 409
    assert place.codes() == [Code.CT_LOG_ROLLED_BACK]
    assert isinstance(place.evidence()[0], RolledBack)


def test_a_head_without_its_proof_is_looked_into(place: Place) -> None:
    """The log's own tiles show whether it goes on from what was seen."""
    fork = place.paper.fork()
    place.grow()
    comparison = Comparison(place.witness, (), reactor(), place.log)
    place.witness.tell_of_doubts(comparison.doubt)
    fork.fill(9, b"another")
    fork.tick(9)
    fork.sign()
    place.paper.shows = fork
    proof = merkle.consistency_proof(5, 9, fork._read)
    assert place.ask(5, proof, fork.note).status == 422
    turn_until(place.evidence)
    assert place.codes() == [Code.CT_LOG_FORKED]


@contextmanager
def answering(of: Place) -> Iterator[LogTransport]:
    """What another witness serves of its heads."""

    def answers(path: str) -> bytes:
        head = of.witness.head_of(of.paper.log.origin)
        is_asked = path == f"/checkpoint/{of.paper.log.log_id.hex()}"
        return ok(head.note.encode()) if head and is_asked else answer(404)

    with serving(answers, None) as endpoint:
        url = WebUrl.parse(f"http://127.0.0.1:{endpoint.port}", "witness")
        transport = LogTransport(reactor(), url)
        try:
            yield transport
        finally:
            transport.hang_up()


@pytest.mark.parametrize("larger", ["mine", "theirs"])
def test_two_trees_shown_to_two_witnesses_are_found(
    place: Place, tmp_path: Path, larger: str
) -> None:
    """Each witness is shown a tree of its own; whoever has the larger one can prove it, by what it is shown."""
    place.grow(300)
    fork = place.paper.fork()
    other = Place(tmp_path / "w2", fork, "w2")
    assert other.ask(0).status == 200
    assert other.grow(20 if larger == "mine" else 70, b"another").status == 200
    assert place.grow(45).status == 200
    one, two = (place, other) if larger == "mine" else (other, place)
    if one is other:
        place.paper.shows = fork
    with answering(one) as transport:
        # Who has the smaller one, and is shown no larger one, finds nothing and says nothing.
        place.paper.shows = fork if two is other else None
        run(Comparison(two.witness, (transport,), reactor(), two.log).look())
        assert not two.evidence()
    with answering(two) as transport:
        place.paper.shows = fork if one is other else None
        run(Comparison(one.witness, (transport,), reactor(), one.log).look())
    assert one.codes() == [Code.CT_LOG_FORKED]
    (found,) = one.evidence()
    # Verified by nothing but the list of logs.
    assert "two trees" in str(found.verify(LogList((place.paper.log,))))
    other.record.close()


def test_two_witnesses_that_see_one_log_agree(place: Place, tmp_path: Path) -> None:
    place.grow(300)
    other = Place(tmp_path / "w2", place.paper, "w2")
    assert other.ask(0).status == 200
    with answering(other) as transport:
        comparison = Comparison(place.witness, (transport,), reactor(), place.log)
        run(comparison.look())
        place.grow(17)
        run(comparison.look())
    assert comparison.compared == 2 and not comparison.problems
    with answering(place) as transport:
        comparison = Comparison(other.witness, (transport,), reactor(), other.log)
        run(comparison.look())  # theirs is larger, and the log shows as much
    assert comparison.compared == 1
    assert not place.evidence() and not other.evidence()
    other.record.close()


def test_a_witness_that_is_away_or_lies_is_said_once(place: Place) -> None:
    place.grow()
    for said in (
        answer(500),
        ok(b"words"),
        ok(place.paper.note.replace("\n5\n", "\n6\n").encode()),
    ):
        with serving(said, None) as endpoint:
            url = WebUrl.parse(f"http://127.0.0.1:{endpoint.port}", "witness")
            transport = LogTransport(reactor(), url)
            comparison = Comparison(place.witness, (transport,), reactor(), place.log)
            run(comparison.look())
            run(comparison.look())
            transport.hang_up()
        assert len(comparison.problems) == 1
    assert place.log.count("witness-not-compared") == 3 and not place.evidence()


def test_its_record_is_its_own(place: Place) -> None:
    place.record.close()
    with pytest.raises(PkiError, match="one name"):
        Record(place.record.path).open("another")
    with sqlite3.connect(place.record.path) as connection:
        connection.execute("CREATE TRIGGER t AFTER UPDATE ON heads BEGIN DELETE FROM heads; END")
    with pytest.raises(PkiError, match="triggers"):
        Record(place.record.path).open(place.name)


def test_what_is_no_record_is_refused(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "witness.db"
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(PkiError, match="cannot be used"):
        Record(path).open(place.name)


def test_the_log_s_lines_alone_are_kept_of_a_note(place: Place) -> None:
    place.paper.fill(3)
    note = Note.parse(place.paper.sign())
    place.paper.note = f"{note}\u2014 somebody.else AAAAAAAA\n"
    assert place.ask(0).status == 200
    head = place.witness.head_of(place.paper.log.origin)
    assert head is not None and "somebody" not in head.note and "w1" in head.note
    assert open_note(head.note, place.paper.log) == head.head
