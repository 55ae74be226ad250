"""What a client offers is read of its first bytes, whatever they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.twisted_mesh.tls.test_groups import tell
from twisted_mesh.tls.client_hello import offered_groups


def hello(groups: str = "") -> bytes:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if groups:
        tell(context, groups)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    client.set_tlsext_host_name(b"localhost")
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(1 << 16)


def records(message: bytes, size: int) -> bytes:
    """A handshake message in records of at most that size."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def with_groups(*numbers: int) -> bytes:
    """A hello with that extension alone."""
    listed = b"".join(number.to_bytes(2) for number in numbers)
    body = len(listed).to_bytes(2) + listed
    extension = b"\x00\x0a" + len(body).to_bytes(2) + body
    message = (
        bytes(34) + b"\x00" + b"\x00\x00" + b"\x01\x00" + len(extension).to_bytes(2) + extension
    )
    return b"\x01" + len(message).to_bytes(3) + message


@pytest.mark.parametrize(
    "groups",
    ["x25519", "secp256r1:secp384r1:x448", "X25519MLKEM768:x25519", "SecP384r1MLKEM1024:ffdhe2048"],
)
def test_openssls_own_hello_is_read(groups: str) -> None:
    assert offered_groups(hello(groups)) == tuple(groups.split(":"))


def test_what_it_offers_by_itself_begins_with_the_hybrid_one() -> None:
    offered = offered_groups(hello())
    assert offered is not None
    assert offered[0] == "X25519MLKEM768"


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_it_may_come_in_several_records(size: int) -> None:
    assert offered_groups(records(hello("secp521r1")[5:], size)) == ("secp521r1",)


def test_grease_is_passed_over_and_what_has_no_name_is_told_by_its_number() -> None:
    data = records(with_groups(0x0A0A, 0x11EC, 0xFAFA, 0x7777, 0x0A1A), 4096)
    assert offered_groups(data) == ("X25519MLKEM768", "0x7777", "0x0a1a")


def test_of_many_sixteen_are_told() -> None:
    offered = offered_groups(records(with_groups(*range(0x3000, 0x4000)), 16384))
    assert offered is not None
    assert len(offered) == 16


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        records(with_groups(0x1D), 4096)[:-1],
        records(b"\x01" + (36).to_bytes(3) + bytes(36), 4096),
    ],
)
def test_what_is_no_whole_hello_offers_nothing_that_is_known(data: bytes) -> None:
    assert offered_groups(data) is None


@given(st.binary(max_size=400))
def test_whatever_comes_it_raises_nothing(data: bytes) -> None:
    assert offered_groups(data) in (None, offered_groups(data))
    _ = offered_groups(records(b"\x01" + len(data).to_bytes(3) + data, 64))


@given(st.data())
def test_nor_does_a_hello_that_was_changed_on_the_way(data: st.DataObject) -> None:
    whole = bytearray(records(with_groups(0x1D, 0x11EC), 4096))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found = offered_groups(bytes(whole))
    assert found is None or len(found) <= 2
