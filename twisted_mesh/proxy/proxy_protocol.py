"""The PROXY protocol, version 2: who has called, said to the target before the first byte.

See its specification by HAProxy, section 2.2. Besides what that names, the caller's SPIFFE ID is said under a type
of the range for applications, :data:`SPIFFE_ID`.
"""

import socket
import struct

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from pki.keys.algorithm import kind_of
from twisted_mesh.proxy.seam import Caller

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
#: The type of the value that is the caller's SPIFFE ID, in UTF-8.
SPIFFE_ID = 0xE0
_ALPN, _AUTHORITY, _CRC32C, _SSL = 0x01, 0x02, 0x03, 0x20
_VERSION, _CN, _CIPHER, _SIGNATURE_ALGORITHM, _KEY_ALGORITHM = 0x21, 0x22, 0x23, 0x24, 0x25
#: Version 2, command PROXY.
_PROXY = 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
#: The caller speaks TLS; it has shown a certificate on this connection. No session is ever resumed.
_BY_TLS, _WITH_CERTIFICATE = 0x01, 0x02
_VERIFIED, _NOT_VERIFIED = 0, 1
_PATH = 108
#: Bytes of a common name that is passed on: four times what X.520 lets one have, in letters of any alphabet. All of the
#: header has to fit in 64 KiB.
_MOST_NAME = 256
#: The checksum's value, which is at the end, is counted as zeros.
_NO_SUM = bytes(4)


def header(caller: Caller) -> bytes:
    """What is said of ``caller``: addresses, and by TLV what TLS has proven."""
    family, addresses = _addresses(caller.address, caller.local)
    values = (*_of_tls(caller), _tlv(_CRC32C, _NO_SUM))
    body = addresses + b"".join(values)
    whole = SIGNATURE + struct.pack("!BBH", _PROXY, family, len(body)) + body
    return whole[:-4] + struct.pack("!I", crc32c(whole))


def _addresses(source: IAddress, target: IAddress) -> tuple[int, bytes]:
    if isinstance(source, IPv4Address) and isinstance(target, IPv4Address):
        family, kind = _TCP4, socket.AF_INET
    elif isinstance(source, IPv6Address) and isinstance(target, IPv6Address):
        family, kind = _TCP6, socket.AF_INET6
    elif isinstance(source, UNIXAddress) and isinstance(target, UNIXAddress):
        return _UNIX, _path(source) + _path(target)
    else:
        return _UNSPECIFIED, b""
    hosts = (socket.inet_pton(kind, end.host.partition("%")[0]) for end in (source, target))
    return family, b"".join(hosts) + struct.pack("!HH", source.port, target.port)


def _path(end: UNIXAddress) -> bytes:
    name = end.name or b""
    return name[:_PATH].ljust(_PATH, b"\0")


def _of_tls(caller: Caller) -> tuple[bytes, ...]:
    """What is known of TLS; nothing where the caller speaks none."""
    if caller.tls is None:
        return ()
    peer, tls = caller.peer, caller.tls
    values = [
        _tlv(_VERSION, tls.get_protocol_version_name().encode("ascii")),
        _tlv(_CIPHER, (tls.get_cipher_name() or "").encode("ascii")),
    ]
    if peer is not None:
        values += [
            *(_tlv(_CN, name) for name in _common_name(peer.leaf)),
            _tlv(_SIGNATURE_ALGORITHM, _signature_algorithm(peer.leaf)),
            _tlv(_KEY_ALGORITHM, _key_algorithm(peer.leaf)),
        ]
    client = _BY_TLS | (0 if peer is None else _WITH_CERTIFICATE)
    verified = _NOT_VERIFIED if peer is None else _VERIFIED
    said = [_tlv(_SSL, struct.pack("!BI", client, verified) + b"".join(values))]
    if peer is not None:
        said.append(_tlv(SPIFFE_ID, str(peer.spiffe_id).encode()))
    if agreed := tls.get_alpn_proto_negotiated():
        said.append(_tlv(_ALPN, agreed))
    if name := tls.get_servername():
        said.append(_tlv(_AUTHORITY, name))
    return tuple(said)


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def _common_name(leaf: x509.Certificate) -> list[bytes]:
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    said = [str(name.value).encode() for name in names]
    return said if len(said) == 1 and len(said[0]) <= _MOST_NAME else []


def _signature_algorithm(leaf: x509.Certificate) -> bytes:
    named = leaf.signature_hash_algorithm
    return b"none" if named is None else named.name.upper().encode("ascii")


def _key_algorithm(leaf: x509.Certificate) -> bytes:
    kind = kind_of(leaf.public_key())
    return b"unknown" if kind is None else kind.label.encode("ascii")


def _table() -> tuple[int, ...]:
    """Of Castagnoli's polynomial, reflected."""
    found = []
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F63B78 if rest & 1 else 0)
        found.append(rest)
    return tuple(found)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli's (RFC 3720 appendix B.4)."""
    found = 0xFFFFFFFF
    for byte in data:
        found = found >> 8 ^ _TABLE[(found ^ byte) & 0xFF]
    return found ^ 0xFFFFFFFF
