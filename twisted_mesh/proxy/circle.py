"""Listeners of one process that carry to one another in a circle: the first caller would fill them all."""

import ipaddress
import os
from collections.abc import Mapping, Sequence

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress

from twisted_mesh.proxy.listener import Listener, Target

_ANY = ("", "0.0.0.0", "::")  # noqa: S104  # compared with, not bound to


def circle(listeners: Mapping[str, tuple[IAddress, Target]]) -> Sequence[str]:
    """The names of listeners of which each carries to the next and the last to the first; none where there are none.

    ``listeners`` are the address and the target of each, by name. Only what the addresses themselves tell is found.
    """
    for name in listeners:
        way = [name]
        while (following := _behind(listeners[way[-1]][1], listeners)) is not None:
            if following in way:
                return way[way.index(following) :]
            way.append(following)
    return ()


def circle_problem(addresses: Sequence[IAddress], listeners: Sequence[Listener]) -> str:
    """What is to be said where a caller of one of these would be carried round and round; empty where none would be.

    ``addresses`` are those that they are bound to, in the same order.
    """
    ends = zip(addresses, listeners, strict=True)
    first, *others = circle({one.name: (address, one.target) for address, one in ends}) or ("",)
    if not first:
        return ""
    way = f"to {', that to '.join(others)}, and that back to {first}" if others else "to itself"
    return f"listener {first} carries {way}: the first caller would fill it; correct its target"


def _behind(target: Target, listeners: Mapping[str, tuple[IAddress, Target]]) -> str | None:
    return next((name for name, (address, _) in listeners.items() if _is_at(target, address)), None)


def _is_at(target: Target, address: IAddress) -> bool:
    """Whether connections to ``target`` come to whoever listens at ``address``."""
    if isinstance(address, UNIXAddress):
        name = os.fsdecode(address.name or b"")
        return bool(target.path and name) and os.path.realpath(target.path) == os.path.realpath(
            name
        )
    host, port = str(getattr(address, "host", "")), getattr(address, "port", 0)
    if target.port != port or not target.is_local:
        return False
    return host in _ANY or target.host == "localhost" or _same(target.host, host)


def _same(host: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(other)
    except ValueError:
        return host == other
