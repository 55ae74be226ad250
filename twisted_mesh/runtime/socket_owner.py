"""Whose a socket is that is in our way: what the kernel tells in /proc, to its owner and to root (Linux only)."""

import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pki.errors import printable

#: The state of a socket that listens, in /proc/net/tcp.
_LISTENS = "0A"
#: The flag of one that listens, in /proc/net/unix.
_ACCEPTS = 0x10000
_OF_SOCKET = re.compile(r"socket:\[(\d+)\]")


def listener_on(interface: str, port: int, proc: Path = Path("/proc")) -> str | None:
    """Who listens on a TCP port, in words: ``PID 4711 (twistd)``; None where nobody is seen.

    ``interface`` is an IP address, or empty for all of them.
    """
    wanted = _address(interface)
    inodes: set[str] = set()
    for name in ("tcp", "tcp6"):
        for words in _rows(proc / "self" / "net" / name):
            local, _, state, *_ = words[1:]
            address, _, number = local.rpartition(":")
            if state != _LISTENS or int(number, 16) != port:
                continue
            found = _address_of(address)
            if found.is_unspecified or wanted is None or wanted.is_unspecified or found == wanted:
                inodes.add(words[9])
    return _owner(inodes, proc)


def listener_at(path: str, proc: Path = Path("/proc")) -> str | None:
    """Who listens on the unix socket ``path``, in words; None where nobody is seen."""
    found = {
        words[6]
        for words in _rows(proc / "self" / "net" / "unix")
        if len(words) > 7 and words[7] == path and int(words[3], 16) & _ACCEPTS
    }
    return _owner(found, proc)


def users_at(
    there: tuple[str, int], here: tuple[str, int], proc: Path = Path("/proc")
) -> frozenset[int]:
    """The users of a server on this machine: of whoever listens on its port, and of its end of our connection.

    Both are needed. A connection that nobody has taken yet is shown as root's, and then whoever listens will take it;
    one that was taken is shown as it is, though its taker may listen no more. So the listeners are looked at first.
    Empty where no listener is seen: the server is on another machine, or in another network namespace.
    """
    address, port = _address(there[0]), there[1]
    listening, taken = set(), set()
    for is_listening in (True, False):
        for name in ("tcp", "tcp6"):
            for words in _rows(proc / "self" / "net" / name):
                (local, local_port), (remote, remote_port) = map(_end, words[1:3])
                if local_port != port:
                    continue
                if is_listening and words[3] == _LISTENS:
                    if local.is_unspecified or local == address:
                        listening.add(int(words[7]))
                elif (local, remote, remote_port) == (address, _address(here[0]), here[1]):
                    taken.add(int(words[7]))
    return frozenset(listening | taken) if listening and taken else frozenset()


def _end(
    kernels: str,
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    address, _, port = kernels.rpartition(":")
    return _address_of(address), int(port, 16)


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines[1:]:
        yield line.split(maxsplit=7 if path.name == "unix" else -1)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _address_of(kernels: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """As the kernel writes it: words of 32 bits, each in the machine's order."""
    words = bytes.fromhex(kernels)
    step = -1 if sys.byteorder == "little" else 1
    swapped = b"".join(words[at : at + 4][::step] for at in range(0, len(words), 4))
    if len(swapped) == 4:
        return ipaddress.IPv4Address(swapped)
    address = ipaddress.IPv6Address(swapped)
    return address.ipv4_mapped or address


def _owner(inodes: set[str], proc: Path) -> str | None:
    """The first process that has one of those sockets open, as far as we may look."""
    if not inodes:
        return None
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            for descriptor in (process / "fd").iterdir():
                match = _OF_SOCKET.fullmatch(os.readlink(descriptor))
                if match and match[1] in inodes:
                    name = (process / "comm").read_text(errors="replace").strip()
                    return f"PID {process.name} ({printable(name, 40)})"
        except OSError:  # it has ended, or is another user's
            continue
    return None
