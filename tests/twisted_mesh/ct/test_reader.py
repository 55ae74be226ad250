"""A log read at a real socket: what is believed of it, and what is not."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from pki.codes import Code
from pki.ct.log_list import Log
from pki.ct.tile_path import issuer_path
from pki.errors import Malformed, PkiError
from pki.tlog import merkle
from tests.authorities import der, key, mesh
from tests.twisted_mesh.ct.paper_log import PaperLog, served
from tests.twisted_mesh.federation.hostile import answer, ok, reactor, redirect, serving
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.ct.contradiction import of_two_heads, of_view
from twisted_mesh.ct.errors import LogBusy, LogUnusable, NotInLog, TilesContradict
from twisted_mesh.ct.log_client import LogClient
from twisted_mesh.ct.reader import LogReader, SignedHead
from twisted_mesh.ct.view import LogView

SIZE = 256 * 257 + 70


@pytest.fixture(scope="module")
def large() -> PaperLog:
    """With full tiles of two levels, and partial ones of three."""
    log = PaperLog("large")
    log.fill(SIZE)
    return log


@pytest.fixture
def small() -> Iterator[PaperLog]:
    log = PaperLog("small")
    log.fill(300)
    with served(log):
        log.sign()
        yield log


def reader_of(log: Log | PaperLog, timeout: float = 5.0) -> LogReader:
    return LogReader(log.log if isinstance(log, PaperLog) else log, reactor(), timeout)


def view_of(log: PaperLog) -> LogView:
    reader = reader_of(log)
    return LogView(reader, run(reader.checkpoint()))


def refusal(work: Any) -> PkiError:
    with pytest.raises(PkiError) as refused:
        run(work)
    assert str(refused.value).isprintable()
    return refused.value


def test_every_part_of_a_large_log_is_read_and_verified(large: PaperLog) -> None:
    with served(large) as endpoint:
        large.sign()
        view = view_of(large)
        assert view.size == SIZE
        for start, end in ((0, 3), (250, 520), (SIZE - 100, SIZE), (65_530, 65_545), (7, 7)):
            assert run(view.entries(start, end)) == large.entries[start:end]
            assert run(view.leaf_hashes(start, end)) == [
                entry.leaf_hash for entry in large.entries[start:end]
            ]
        for index in (0, 255, 65_535, 65_536, SIZE - 1):
            proof = run(view.inclusion_proof(index))
            leaf = large.entries[index].leaf_hash
            merkle.verify_inclusion(leaf, index, SIZE, proof, view.signed.root)
        for size in (1, 255, 256, 65_536, 65_537, SIZE):
            assert run(view.root_at(size)) == large.root(size)
            proof = run(view.consistency_proof(size))
            merkle.verify_consistency(size, SIZE, large.root(size), view.signed.root, proof)
        # Tiles that are full are asked for once, and connections are kept.
        hashes = [path for path in large.asked if not path.startswith("tile/data")]
        assert len(hashes) == len(set(hashes)) == 10
        assert endpoint.most_open <= 8
        view.reader.hang_up()


def test_what_is_beyond_the_log_is_not_asked_for(small: PaperLog) -> None:
    view = view_of(small)
    for work in (view.entries(299, 301), view.root_at(301), view.leaf_hashes(-1, 2)):
        assert isinstance(refusal(work), Malformed)
    with pytest.raises(merkle.BadProof):
        run(view.inclusion_proof(300))


def test_an_empty_log_has_nothing() -> None:
    log = PaperLog("empty")
    with served(log):
        log.sign()
        view = view_of(log)
        assert run(view.entries(0, 0)) == [] and run(view.root_at(0)) == merkle.EMPTY_ROOT
        assert run(of_view(view, view.signed)) is None


def test_full_tiles_take_the_place_of_partial_ones_while_one_reads(small: PaperLog) -> None:
    view = view_of(small)
    small.fill(300)
    small.without_partial = True
    assert run(view.entries(290, 300)) == small.entries[290:300]
    assert "tile/0/001" in small.asked and "tile/data/001" in small.asked


def test_what_was_zipped_is_unfolded(small: PaperLog) -> None:
    small.zips = True
    assert run(view_of(small).entries(0, 300)) == small.entries


def test_a_bomb_is_unfolded_no_further_than_it_may_be_long(small: PaperLog) -> None:
    bomb = gzip.compress(bytes(12 * 1024 * 1024))
    small.wrong["tile/0/000"] = ok(bomb, content_encoding="gzip")
    assert "more than 8192 bytes" in str(refusal(view_of(small).entries(0, 1)))


@pytest.mark.parametrize(
    "said",
    [
        gzip.compress(bytes(8192), mtime=0)[:-9],
        gzip.compress(bytes(8192), mtime=0) + b"more",
        b"no gzip at all",
        b"",
    ],
)
def test_gzip_that_is_damaged_is_refused(small: PaperLog, said: bytes) -> None:
    small.wrong["tile/0/000"] = ok(said, content_encoding="gzip")
    found = refusal(view_of(small).entries(0, 1))
    assert isinstance(found, LogUnusable) and "gzip" in str(found)


@pytest.mark.parametrize(
    ("path", "said", "kind"),
    [
        ("tile/0/000", ok(bytes(8192)), TilesContradict),
        ("tile/0/001.p/44", ok(bytes(44 * 32)), TilesContradict),
        ("tile/1/000.p/1", ok(bytes(32)), TilesContradict),
        ("tile/0/000", ok(bytes(8191)), LogUnusable),
        ("tile/0/000", ok(bytes(8193)), PkiError),
        ("tile/0/000", ok(bytes(8192), content_encoding="br"), LogUnusable),
        ("tile/data/000", ok(b"no entries"), LogUnusable),
        ("tile/data/000", answer(404), NotInLog),
        ("tile/data/000", answer(500, b"a bug"), LogBusy),
        ("tile/data/000", redirect("https://localhost:1/"), LogUnusable),
        ("tile/data/000", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", PkiError),
        ("tile/data/000", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, PkiError),
    ],
)
def test_what_is_not_of_the_signed_tree_is_not_taken(
    small: PaperLog, path: str, said: bytes, kind: type[PkiError]
) -> None:
    view = view_of(small)
    small.wrong[path] = said
    assert isinstance(refusal(view.entries(0, 1)), kind)
    del small.wrong[path]
    assert run(view.entries(0, 1)) == small.entries[:1]


def test_another_entry_in_the_data_is_found_out(small: PaperLog) -> None:
    other = PaperLog("small")
    other.fill(256, b"another")
    view = view_of(small)
    small.wrong["tile/data/000"] = ok(b"".join(entry.tile_leaf for entry in other.entries))
    assert "entry 0" in str(refusal(view.entries(0, 5)))


@pytest.mark.parametrize("note", [b"", b"words\n", b"\xff", b"small\n1\n"])
def test_a_head_that_is_none_is_refused(small: PaperLog, note: bytes) -> None:
    small.wrong["checkpoint"] = ok(note)
    refusal(reader_of(small).checkpoint())


def test_a_head_is_the_log_s_own(small: PaperLog) -> None:
    other = PaperLog("small", small.port)
    other.fill(3)
    note = other.sign()
    flipped = small.note.replace("300", "301")
    for said, told in ((flipped, "wrong"), (small.note.replace("small", "large"), "signed by")):
        small.wrong["checkpoint"] = ok(said.encode())
        assert told in str(refusal(reader_of(small).checkpoint()))
    small.wrong["checkpoint"] = ok(note.encode())
    assert run(reader_of(small).checkpoint()).size == 3


def test_a_slow_log_is_not_waited_for(small: PaperLog) -> None:
    small.wrong["checkpoint"] = lambda transport: transport.write(b"HTTP/1.1 200 OK\r\n")
    found = refusal(reader_of(small, 0.2).checkpoint())
    assert found.code == Code.LOG_AWAY and "within 0.2 s" in str(found)


def test_a_log_that_is_not_there_is_away() -> None:
    log = PaperLog("gone")
    with serving(ok(b""), None) as endpoint:
        log.port = endpoint.port
    assert refusal(reader_of(log).checkpoint()).code == Code.LOG_AWAY


def test_what_answers_with_another_key_is_refused(small: PaperLog) -> None:
    from attrs import evolve

    from twisted_mesh.tls.self_signed import pin_of

    log = evolve(small.log, tls_pins=(pin_of(key("another")),))
    assert refusal(reader_of(log).checkpoint()).problems[0].code == Code.WRONG_FINGERPRINT
    assert not small.asked


def test_without_pins_it_is_the_web_s_cas_that_vouch(small: PaperLog) -> None:
    from attrs import evolve

    assert refusal(reader_of(evolve(small.log, tls_pins=())).checkpoint())
    assert not small.asked


def test_the_log_s_pin_is_not_asked_of_another_web_server(small: PaperLog) -> None:
    """Which has a key of its own: who it is, the web's CAs say; and by plain http nobody does."""
    from attrs import evolve

    from twisted_mesh.tls.pinned_client import PinnedTls
    from twisted_mesh.tls.web_client import WebTrust

    log = small.log
    assert log.tls_pins and isinstance(reader_of(log)._transport._tls, PinnedTls)
    elsewhere = evolve(log, submission_url="https://log.example:6962/")
    assert isinstance(reader_of(elsewhere)._transport._tls, WebTrust)
    # It has the pinned key, and no certificate of the web's CAs.
    assert refusal(reader_of(elsewhere).checkpoint())
    assert not small.asked
    assert isinstance(LogClient(elsewhere, reactor())._transport._tls, PinnedTls)
    # The same server by another path of it is the same server.
    below = evolve(log, monitoring_url=log.monitoring_url + "tiles/")
    assert isinstance(reader_of(below)._transport._tls, PinnedTls)


def test_an_issuer_is_known_by_its_hash(small: PaperLog) -> None:
    from hashlib import sha256

    issuer = der(mesh().issuing.certificate)
    digest = sha256(issuer).digest()
    small.wrong[issuer_path(digest)] = ok(issuer)
    assert run(reader_of(small).issuer(digest)) == mesh().issuing.certificate
    small.wrong[issuer_path(digest)] = ok(issuer + b"\0")
    assert "something else" in str(refusal(reader_of(small).issuer(digest)))
    assert isinstance(refusal(reader_of(small).issuer(bytes(32))), NotInLog)


def test_a_connection_that_was_lost_meanwhile_is_made_again(small: PaperLog) -> None:
    reader = reader_of(small)
    hangs_up = [True]

    def once(transport: Any) -> None:
        if hangs_up:
            hangs_up.clear()
            transport.abortConnection()
        else:
            small.say(transport, ok(small.note.encode()))

    run(LogView(reader, run(reader.checkpoint())).entries(0, 1))
    small.wrong["checkpoint"] = once
    assert run(reader.checkpoint()).size == 300 and not hangs_up


def test_two_heads_contradict_by_their_size_and_time(small: PaperLog) -> None:
    first = run(reader_of(small).checkpoint())
    other = small.fork()
    other.entries.pop()
    other.tick()
    other.sign()
    back = SignedHead(run(_opened(other)), other.note)
    found = of_two_heads(first, back)
    assert found is not None and found == of_two_heads(back, first)
    assert of_two_heads(first, first) is None
    small.tick()
    small.fill(1)
    small.sign()
    grown = run(reader_of(small).checkpoint())
    assert of_two_heads(first, grown) is None and of_two_heads(grown, first) is None


async def _opened(log: PaperLog) -> Any:
    from pki.ct.tree_head import open_note

    return open_note(log.note, log.log)


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\nwords"])
def test_what_is_no_log_is_not_taken_for_one(small: PaperLog, said: bytes) -> None:
    small.wrong["checkpoint"] = said
    assert refusal(reader_of(small).checkpoint())
