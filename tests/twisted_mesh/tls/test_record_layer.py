"""The record layer, by both of its ways: they must be the same to whoever uses them."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.twisted_mesh.tls.wires import End
from twisted_mesh.tls import record_layer as module
from twisted_mesh.tls.record_layer import (
    MOST,
    PIECE,
    RECORD,
    DirectRecordLayer,
    PublicRecordLayer,
    RecordLayer,
    record_layer,
)

Made = Callable[[SSL.Connection], RecordLayer]
BOTH = pytest.mark.parametrize("made", [PublicRecordLayer, DirectRecordLayer])


@cache
def contexts() -> tuple[SSL.Context, SSL.Context]:
    """A server's and a client's that shake hands without a look at each other: records are all that counts here."""
    from twisted_mesh.tls.contexts import Role, build_context

    end = End(True)
    svid = end.svid
    assert svid is not None
    server = build_context(svid, (), Role(serves=True))
    server.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    return server, client


def connected() -> tuple[SSL.Connection, SSL.Connection]:
    server, client = (SSL.Connection(context) for context in contexts())
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(MOST))
    assert server.get_cipher_name()
    return server, client


def carry(source: RecordLayer, target: RecordLayer) -> None:
    while data := source.take():
        target.put(data)


def all_of(layer: RecordLayer) -> bytes:
    pieces = []
    while piece := layer.read():
        pieces.append(bytes(piece))
    return b"".join(pieces)


@BOTH
@given(said=st.lists(st.binary(max_size=40) | st.integers(0, 3 * RECORD).map(bytes), max_size=8))
def test_what_is_written_is_read(made: Made, said: list[bytes]) -> None:
    one, other = map(made, connected())
    for data in said:
        one.write(data)
        other.write(memoryview(data))
    carry(one, other)
    assert all_of(other) == b"".join(said)
    carry(other, one)
    assert all_of(one) == b"".join(said)


@BOTH
def test_settling_loses_nothing_that_is_on_its_way(made: Made) -> None:
    one, other = map(made, connected())
    one.write(b"before ")
    carry(one, other)
    one.write(b"between ")
    other.write(b"before ")
    one.settle()
    other.settle()
    one.write(b"after")
    other.write(b"after")
    carry(one, other)
    carry(other, one)
    assert all_of(other) == b"before between after"
    assert all_of(one) == b"before after"
    one.settle()
    one.write(b"again")
    carry(one, other)
    assert other.read() == b"again"


@BOTH
def test_settling_in_the_middle_of_a_record_loses_nothing(made: Made) -> None:
    one, other = map(made, connected())
    one.write(b"x" * 1000)
    wire = bytes(one.take())
    for at in (3, 5, 500):
        piece, wire = wire[:at], wire[at:]
        other.put(piece)
        assert other.read() == b""
        other.settle()
    other.put(wire)
    other.settle()
    assert all_of(other) == b"x" * 1000


@BOTH
@given(
    said=st.lists(st.integers(1, 3 * RECORD), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=6),
    stop=st.integers(0, 5),
)
def test_what_is_lent_is_read_and_may_be_overwritten_then(
    made: Made, said: list[int], cuts: list[int], stop: int
) -> None:
    one, other = map(made, connected())
    wire = b""
    for number, size in enumerate(said):
        one.write(bytes([number]) * size)
        wire += bytes(one.take())
    room, heard, number = bytearray(MOST), b"", 0
    while wire:
        piece, wire = wire[: (cut := cuts[number % len(cuts)])], wire[cut:]
        room[: len(piece)] = piece
        other.lend(memoryview(room)[: len(piece)])
        if number != stop:  # as if its protocol had paused
            heard += all_of(other)
        other.keep()
        room[: len(piece)] = bytes(len(piece))
        number += 1
    assert heard + all_of(other) == b"".join(bytes([n]) * size for n, size in enumerate(said))
    other.settle()
    one.write(b"after")
    carry(one, other)
    assert all_of(other) == b"after"


@BOTH
def test_sealing_is_writing_and_taking(made: Made) -> None:
    one, other = map(made, connected())
    said = bytes(range(256)) * (PIECE // 256)
    for size in (1, RECORD, RECORD + 1, PIECE):
        other.put(one.seal(memoryview(said)[:size]))
        assert one.take() == b""
        one.relax()
        assert all_of(other) == said[:size]
    one.write(b"waits ")
    one.relax()
    one.write(b"and is not lost")
    carry(one, other)
    assert all_of(other) == b"waits and is not lost"


@BOTH
def test_no_call_takes_out_more_than_its_bound(made: Made) -> None:
    one, other = map(made, connected())
    said = bytes(range(256)) * (5 * MOST // 256)
    one.write(said)
    wire = b""
    while data := one.take():
        assert len(data) <= MOST
        wire += data
    other.put(wire)
    heard = b""
    while piece := other.read():
        assert len(piece) <= MOST
        heard += piece
    assert heard == said


@BOTH
def test_half_a_record_is_nothing_yet(made: Made) -> None:
    one, other = map(made, connected())
    one.write(b"whole")
    wire = bytes(one.take())
    for at in range(len(wire) - 1):
        other.put(wire[at : at + 1])
        assert other.read() == b""
    other.put(wire[-1:])
    assert other.read() == b"whole"


@BOTH
def test_what_came_before_the_goodbye_is_read_before_it(made: Made) -> None:
    server, client = connected()
    one, other = made(server), made(client)
    one.write(b"last words")
    server.shutdown()
    carry(one, other)
    assert other.read() == b"last words"
    for _ in range(2):
        with pytest.raises(SSL.ZeroReturnError):
            other.read()


@BOTH
def test_what_came_before_a_broken_record_is_read_before_the_error(made: Made) -> None:
    one, other = map(made, connected())
    one.write(b"good")
    good = bytes(one.take())
    one.write(b"changed on the way")
    bad = bytearray(one.take())
    bad[-1] ^= 1
    other.put(good + bytes(bad))
    assert other.read() == b"good"
    with pytest.raises(SSL.Error):
        other.read()
    assert other.take(), "the alert bad_record_mac"


@BOTH
def test_what_breaks_one_connection_is_not_held_against_another(made: Made) -> None:
    broken, _ = map(made, connected())
    one, other = map(made, connected())
    broken.put(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(SSL.Error):
        broken.read()
    one.write(b"fine")
    carry(one, other)
    assert other.read() == b"fine"
    assert other.read() == b""


@BOTH
def test_behind_its_goodbye_nothing_is_said(made: Made) -> None:
    server, _ = connected()
    layer = made(server)
    server.shutdown()
    with pytest.raises(SSL.Error):
        layer.write(b"more")


def test_the_direct_way_is_taken_here() -> None:
    assert isinstance(record_layer(connected()[0]), DirectRecordLayer)


@pytest.mark.parametrize("problem", [AttributeError, TypeError, SSL.Error])
def test_with_another_binding_the_public_way_is_taken(
    problem: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(layer: RecordLayer) -> bytes:
        raise problem

    module._quicker.cache_clear()
    monkeypatch.setattr(DirectRecordLayer, "take", changed)
    try:
        assert isinstance(record_layer(connected()[0]), PublicRecordLayer)
    finally:
        module._quicker.cache_clear()


def test_without_a_binding_the_public_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connected()[0]
    module._quicker.cache_clear()
    monkeypatch.setattr(module, "_lib", None)
    monkeypatch.setattr(module, "_ffi", None)
    try:
        assert isinstance(record_layer(connection), PublicRecordLayer)
    finally:
        module._quicker.cache_clear()
