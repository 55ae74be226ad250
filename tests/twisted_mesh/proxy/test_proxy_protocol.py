"""The PROXY protocol, version 2: what is written is what its readers read; with a real listener, and with HAProxy."""

import ipaddress
import socket
import struct
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.authorities import forge, mesh
from tests.running import PATIENCE, Mesh, Running, free_port, until
from tests.tools import require_tool
from tests.twisted_mesh.proxy.backend import Backend
from tests.twisted_mesh.proxy.pairs import ID, pair, said_by
from twisted_mesh.proxy.listener import Listener, Mode, Target
from twisted_mesh.proxy.proxy_protocol import SIGNATURE, SPIFFE_ID, crc32c, header
from twisted_mesh.proxy.seam import Caller

LISTENER = Listener("in", Mode.SERVER, "127.0.0.1:0", Target.parse("127.0.0.1:1"))
ports = st.integers(0, 65535)


def values_of(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, size = struct.unpack("!BH", data[:3])
        assert kind not in found and len(data) >= 3 + size
        found[kind], data = data[3 : 3 + size], data[3 + size :]
    return found


def read(data: bytes) -> tuple[int, bytes, dict[int, bytes], bytes]:
    """Family, addresses, values, and what comes behind; as a reader does it that checks the sum."""
    assert data.startswith(SIGNATURE)
    command, family, size = struct.unpack("!BBH", data[12:16])
    assert command == 0x21
    whole, rest = data[: 16 + size], data[16 + size :]
    length = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}[family]
    values = values_of(whole[16 + length :])
    (told,) = struct.unpack("!I", values[0x03])
    assert told == crc32c(whole.replace(b"\x03\x00\x04" + values[0x03], b"\x03\x00\x04" + bytes(4)))
    return family, whole[16 : 16 + length], values, rest


def test_the_sum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(st.ip_addresses(v=4), ports, st.ip_addresses(v=4), ports)
def test_addresses_of_ip_version_4(
    source: ipaddress.IPv4Address, a: int, target: ipaddress.IPv4Address, b: int
) -> None:
    ends = IPv4Address("TCP", str(source), a), IPv4Address("TCP", str(target), b)
    family, addresses, values, _ = read(header(Caller(LISTENER, *ends)))
    assert family == 0x11
    assert addresses == source.packed + target.packed + struct.pack("!HH", a, b)
    assert [*values] == [3], "who has shown nothing is said to have proven nothing"


@given(st.ip_addresses(v=6), ports, st.ip_addresses(v=6), ports)
@example(ipaddress.IPv6Address("fe80::1%eth0"), 1, ipaddress.IPv6Address("::1"), 2)
def test_addresses_of_ip_version_6(
    source: ipaddress.IPv6Address, a: int, target: ipaddress.IPv6Address, b: int
) -> None:
    ends = IPv6Address("TCP", str(source), a), IPv6Address("TCP", str(target), b)
    family, addresses, _, _ = read(header(Caller(LISTENER, *ends)))
    assert family == 0x21
    assert addresses == source.packed + target.packed + struct.pack("!HH", a, b)


@pytest.mark.parametrize("name", [None, b"/run/a.sock", b"/" + b"x" * 200])
def test_addresses_of_a_unix_socket(name: bytes | None) -> None:
    ends = UNIXAddress(name), UNIXAddress(b"/run/b.sock")
    family, addresses, _, _ = read(header(Caller(LISTENER, *ends)))
    assert family == 0x31
    assert addresses[:108].rstrip(b"\0") == (name or b"")[:108]
    assert addresses[108:].rstrip(b"\0") == b"/run/b.sock"


def test_addresses_of_two_kinds_are_not_said() -> None:
    ends = IPv4Address("TCP", "127.0.0.1", 1), UNIXAddress(b"/run/b.sock")
    assert read(header(Caller(LISTENER, *ends)))[:2] == (0, b"")


class Tls:
    """An end of a connection that has agreed on something."""

    get_protocol_version_name = staticmethod(lambda: "TLSv1.3")
    get_cipher_name = staticmethod(lambda: "TLS_AES_256_GCM_SHA384")
    get_alpn_proto_negotiated = staticmethod(lambda: b"")
    get_servername = staticmethod(lambda: b"host.example")


@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize(("size", "is_said"), [(64, True), (257, False), (70_000, False)])
def test_a_name_that_is_too_long_is_not_said(size: int, is_said: bool) -> None:
    name = x509.NameAttribute(NameOID.COMMON_NAME, "x" * size, _validate=False)
    leaf = forge(mesh().issuing, subject=x509.Name([name]))
    peer: Any = SimpleNamespace(leaf=leaf, spiffe_id=ID)
    tls: Any = Tls()
    here = IPv4Address("TCP", "127.0.0.1", 1)
    _, _, values, _ = read(header(Caller(LISTENER, here, here, peer, tls)))
    assert values[SPIFFE_ID] == ID.encode()
    assert (0x22 in values_of(values[0x20][5:])) is is_said


def test_a_target_hears_who_has_called_before_all_else(running: Mesh) -> None:
    heard: SimpleQueue[bytes] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        heard.put(said_by(connection))
        connection.sendall(b"thanks")

    with (
        Backend(serve) as backend,
        pair(running, backend.target, inside="proxy-protocol = true") as carried,
    ):
        with carried.call() as caller:
            caller.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n")
            caller.shutdown(socket.SHUT_WR)
            assert said_by(caller) == b"thanks"
        family, addresses, values, rest = read(heard.get(timeout=PATIENCE))
        assert rest == b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n", "what a caller says itself is data"
        assert family == 0x11
        assert addresses[:8] == socket.inet_aton("127.0.0.1") * 2
        assert struct.unpack("!H", addresses[10:])[0] == carried.door
        assert values[SPIFFE_ID].decode() == ID
        assert values[0x02] == b"localhost"
        client, verified = struct.unpack("!BI", values[0x20][:5])
        assert (client, verified) == (0x03, 0), "TLS, and a certificate that was verified"
        within = values_of(values[0x20][5:])
        assert within == {
            0x21: b"TLSv1.3",
            0x22: b"proxy",
            0x23: b"TLS_AES_256_GCM_SHA384",
            0x24: b"SHA256",
            0x25: b"ECDSA P-256",
        }


HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend checked
  bind 127.0.0.1:{port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[dst_port] %[fc_pp_authority]"
"""


@pytest.mark.interop(
    "tests/twisted_mesh/proxy/test_proxy_protocol.py::"
    "test_a_target_hears_who_has_called_before_all_else"
)
def test_haproxy_takes_it_with_its_sum(running: Mesh, tmp_path: Path) -> None:
    program = require_tool("haproxy")
    port = free_port()
    settings = tmp_path / "haproxy.cfg"
    settings.write_text(HAPROXY.format(port=port))
    haproxy = Running.start(program, "-db", "-f", settings, cwd=tmp_path)
    try:
        until(lambda: _answers(port))
        with pair(running, f"127.0.0.1:{port}", inside="proxy-protocol = true") as carried:
            with carried.call() as caller:
                caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = said_by(caller)
            assert answer.rpartition(b"\r\n\r\n")[2] == b"127.0.0.1 %d localhost" % carried.door
    finally:
        haproxy.stop()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True
