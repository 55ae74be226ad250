"""The user and the groups of a process, as the kernel recorded them when it connected."""

import ctypes
import errno
import os
import socket
import struct
from typing import Self

from attrs import frozen

from pki.errors import Malformed
from pki.policy.policy import NoProof

#: Of Linux; Python does not name it yet.
SO_PEERGROUPS = 59
#: Of macOS and the BSDs, where Python names neither.
SOL_LOCAL, LOCAL_PEERCRED = 0, 1

_UCRED = struct.Struct("=iII")
_XUCRED = struct.Struct("=IIh2x")
_XUCRED_SIZE = 76
_MOST_GROUPS_THERE = 16
#: Python's getsockopt reads 1024 bytes at most.
_PYTHONS_MOST = 1024
_NO_USER = 2**32 - 1


@frozen
class Credentials:
    """Whose a process is: its effective user and all of its groups."""

    uid: int
    gids: frozenset[int]
    """The effective group and the supplementary ones."""
    pid: int = 0
    """0 where it is not known."""

    @classmethod
    def of_peer(cls, connected: socket.socket) -> Self:
        """Of the process that connected, at that moment, whatever it has become since.

        Raises :class:`NoProof` where nobody is connected any more.
        """
        try:
            if hasattr(socket, "SO_PEERCRED"):
                return cls._on_linux(connected)
            return cls._elsewhere(connected)
        except OSError as error:
            raise NoProof(
                f"the connection ended before it was known who is at its other end ({_spoken(error)}): connect again"
            ) from None

    @classmethod
    def _on_linux(cls, connected: socket.socket) -> Self:
        data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(data)
        if uid == _NO_USER:
            raise NoProof("nobody is connected to this socket: connect to it")
        return cls(uid, frozenset({gid, *_supplementary(connected)}), pid)

    @classmethod
    def _elsewhere(cls, connected: socket.socket) -> Self:
        """By ``struct xucred``, whose first group is the effective one, and which tells 16 at most."""
        return cls.parse_xucred(connected.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, _XUCRED_SIZE))

    @classmethod
    def parse_xucred(cls, data: bytes) -> Self:
        """Raises :class:`NoProof`."""
        if len(data) >= _XUCRED.size:
            version, uid, count = _XUCRED.unpack_from(data)
            groups = data[_XUCRED.size : _XUCRED.size + 4 * max(count, 0)]
            if version == 0 and 0 < count <= _MOST_GROUPS_THERE and len(groups) == 4 * count:
                return cls(uid, frozenset(struct.unpack(f"={count}I", groups)))
        raise NoProof(
            "the kernel says in a way unknown here who connected: this is a case to report"
        )

    @classmethod
    def parse_status(cls, text: bytes) -> Self:
        """Of a process now, from its ``/proc/PID/status``. Raises :class:`Malformed`."""
        lines = dict(line.split(b":", 1) for line in text.split(b"\n") if b":" in line)
        try:
            # Real, effective, saved, of the file system: the kernel records the second of a peer.
            uid, gid = (int(lines[name].split()[1]) for name in (b"Uid", b"Gid"))
            return cls(uid, frozenset({gid, *map(int, lines[b"Groups"].split())}))
        except (KeyError, IndexError, ValueError):
            raise Malformed("/proc does not say whose the process is: is it Linux's?") from None


def peer_uid(connected: socket.socket) -> int:
    """The effective user of the process that connected, as the kernel recorded it then."""
    return Credentials.of_peer(connected).uid


def _supplementary(connected: socket.socket) -> tuple[int, ...]:
    try:
        data = connected.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _PYTHONS_MOST)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:  # Linux before 4.13
            return ()
        if error.errno != errno.ERANGE:
            raise
        data = _long_option(connected, SO_PEERGROUPS)
    return struct.unpack(f"={len(data) // 4}I", data)


def _long_option(connected: socket.socket, option: int) -> bytes:
    """An option of any length, which Python's getsockopt cannot read."""
    getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt
    length = ctypes.c_uint32(0)
    # With too little room the kernel says how much it wants.
    getsockopt(connected.fileno(), socket.SOL_SOCKET, option, None, ctypes.byref(length))
    buffer = ctypes.create_string_buffer(length.value)
    if getsockopt(connected.fileno(), socket.SOL_SOCKET, option, buffer, ctypes.byref(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw[: length.value]


def _spoken(error: OSError) -> str:
    return error.strerror or type(error).__name__
