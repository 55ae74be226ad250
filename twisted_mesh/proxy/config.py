"""The file of ``mesh-proxy --config``: several listeners in TOML, or every sentence about what is wrong with it."""

import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pki.errors import Malformed, PkiError, discreet, printable
from pki.spiffe import SpiffePattern
from pki.svid.spki_pin import PinSet
from pki.validity import parse_duration
from twisted_mesh.identity.host_names import dns_option
from twisted_mesh.proxy.listener import Bounds, Listener, Mode, OnCut, Target

T = TypeVar("T")
_MOST_LISTENERS = 64
_MOST_CONNECTIONS = 1_000_000


class PinTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[peer-pins]``, as it is written: the pins of all listeners."""

    pins: list[str]
    mode: str | None = None
    until: str | None = None


class ListenerTable(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """One ``[[listener]]``, as it is written; the command line's options have the same words."""

    mode: str
    listen: str
    target: str
    name: str = ""
    allow: list[str] = []
    allow_dns: list[str] = []
    verify: list[str] = []
    verify_dns: list[str] = []
    http: bool = False
    proxy_protocol: bool = False
    permissive: bool = False
    unsafe_listen: bool = False
    unsafe_target: bool = False
    connect_timeout: str = "10s"
    handshake_timeout: str = "10s"
    idle_timeout: str = "0s"
    max_conn_lifetime: str = "0s"
    close_timeout: str = "60s"
    max_connections: int | None = None
    on_cut: str = "reset"


_PIN_KEYS = {"peer-pin": "pins", "peer-pin-mode": "mode", "peer-pin-until": "until"}
_KEYS = {field.encode_name for field in msgspec.structs.fields(ListenerTable)}


def listener_of(table: ListenerTable, spoken: Callable[[str], str]) -> Listener:
    """What a table means; ``spoken`` names a key in sentences. Raises :class:`Malformed`."""
    reading = _Reading(spoken)
    if table.mode not in list(Mode):
        raise Malformed(
            f"{spoken('mode')} {discreet(table.mode, 40)!r} is neither server nor client"
        )
    mode = Mode(table.mode)
    serves = mode is Mode.SERVER
    target = reading.one("target", table.target, Target.parse)
    if serves and not target.is_local and not table.unsafe_target:
        raise Malformed(
            f"{spoken('target')} {target} is another machine, and what is sent there is plain: name a target on this "
            f"one, or say {spoken('unsafe-target')} if nobody else is on the way"
        )
    allow = reading.each("allow", table.allow, SpiffePattern.parse)
    allow_dns = reading.each("allow-dns", table.allow_dns, dns_option)
    verify = reading.each("verify", table.verify, SpiffePattern.parse)
    verify_dns = reading.each("verify-dns", table.verify_dns, dns_option)
    if serves and (verify or verify_dns):
        raise Malformed(
            f"{spoken('verify')} is of mode client: a server says who may call, by {spoken('allow')}"
        )
    if not serves and (allow or allow_dns):
        raise Malformed(
            f"{spoken('allow')} is of mode server: a client says who must answer, by {spoken('verify')}"
        )
    if serves and not (allow or allow_dns):
        raise Malformed(
            f"nobody could call: say who may with {spoken('allow')}, a SPIFFE ID, * for one segment and ** for any rest"
        )
    if not serves and not verify:
        raise Malformed(
            f"nobody could answer: say who must with {spoken('verify')}, the SPIFFE ID of what is at {target}"
        )
    for key, value in (("http", table.http), ("proxy-protocol", table.proxy_protocol)):
        if value and not serves:
            raise Malformed(f"{spoken(key)} is of mode server: a client's callers prove nothing")
    if table.http and table.proxy_protocol:
        raise Malformed(
            f"{spoken('http')} and {spoken('proxy-protocol')} tell the same twice: choose one"
        )
    if table.permissive and not serves:
        raise Malformed(
            f"{spoken('permissive')} is of mode server: a client's callers are plain anyway"
        )
    most = table.max_connections
    if most is not None and not 0 < most <= _MOST_CONNECTIONS:
        raise Malformed(f"{spoken('max-connections')} is a number from 1 to {_MOST_CONNECTIONS}")
    if table.on_cut not in list(OnCut):
        raise Malformed(
            f"{spoken('on-cut')} {discreet(table.on_cut, 40)!r} is neither reset nor end"
        )
    bounds = Bounds(
        reading.seconds("connect-timeout", table.connect_timeout, least=1),
        reading.seconds("handshake-timeout", table.handshake_timeout, least=1),
        reading.seconds("idle-timeout", table.idle_timeout),
        reading.seconds("max-conn-lifetime", table.max_conn_lifetime),
        reading.seconds("close-timeout", table.close_timeout),
        most,
    )
    return Listener(
        table.name or table.listen,
        mode,
        table.listen,
        target,
        allow,
        allow_dns,
        verify,
        verify_dns,
        table.http,
        table.proxy_protocol,
        table.permissive,
        bounds,
        table.unsafe_listen,
        OnCut(table.on_cut),
    )


class _Reading:
    """Values of keys, with the key in what is said of them."""

    def __init__(self, spoken: Callable[[str], str]) -> None:
        self._spoken = spoken

    def one(self, key: str, text: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(text)
        except PkiError as error:
            raise Malformed(f"{self._spoken(key)}: {error}") from None

    def each(self, key: str, texts: list[str], parse: Callable[[str], T]) -> tuple[T, ...]:
        return tuple(self.one(key, text, parse) for text in texts)

    def seconds(self, key: str, text: str, *, least: int = 0) -> float:
        found = self.one(key, text, parse_duration).total_seconds()
        if found < least:
            raise Malformed(f"{self._spoken(key)} is at least {least}s")
        return found


def parse_pins(text: bytes, path: Path, now: datetime) -> PinSet:
    """What ``[peer-pins]`` of a file says; nothing where there is none. Raises :class:`PkiError`."""
    table = _whole(text, f"--config {path}").get("peer-pins")
    if table is None:
        return PinSet()
    where = f"--config {path}, [peer-pins]"
    if isinstance(table, dict) and isinstance(until := table.get("until"), datetime):
        table = {**table, "until": until.isoformat()}  # TOML has times of its own
    try:
        read = msgspec.convert(table, PinTable)
        pins = PinSet.parse(read.pins, read.mode, read.until, now=now, spoken=_PIN_KEYS.__getitem__)
    except msgspec.ValidationError as error:
        raise Malformed(f"{where}: {printable(str(error), 200)}") from None
    except PkiError as error:
        raise Malformed(f"{where}: {error}") from None
    if not pins:
        raise Malformed(f"{where} has no pin: write a rule in pins, or leave the table out")
    return pins


def _whole(text: bytes, where: str) -> dict[str, Any]:
    """All that the file says. Raises :class:`Malformed`."""
    try:
        whole = tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Malformed(f"{where} is not UTF-8 (byte {error.start}): write it in UTF-8") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # one of more digits than int() takes is no TOMLDecodeError
        raise Malformed(f"{where} is no TOML: {printable(str(error), 200)}") from None
    stray = sorted(set(whole) - {"listener", "peer-pins"})
    if stray:
        raise Malformed(
            f"{where}: {discreet(stray[0], 80)!r} is no key of it: it has tables [[listener]], one [peer-pins] and "
            "nothing else"
        )
    return whole


def parse_config(text: bytes, path: Path) -> tuple[Listener, ...]:
    """The listeners of a file, in order. Raises :class:`Malformed` with every table that is wrong."""
    where = f"--config {path}"
    whole = _whole(text, where)
    tables = whole.get("listener")
    if not isinstance(tables, list) or not tables:
        raise Malformed(f"{where} has no listener: write at least one table [[listener]]")
    if len(tables) > _MOST_LISTENERS:
        raise Malformed(f"{where} has {len(tables)} listeners, and {_MOST_LISTENERS} is the most")
    found, wrong = [], []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_listener(table))
        except PkiError as error:
            wrong.append(f"{_named(table, number)}: {error}")
    if wrong:
        raise Malformed(f"{where}: {printable('; '.join(wrong), 2000)}")
    for key, values in (
        ("name", [one.name for one in found]),
        ("listen", [one.address for one in found]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise Malformed(
                f"{where}: two listeners have {key} = {discreet(twice, 80)!r}: each has its own"
            )
    return tuple(found)


def _named(table: object, number: int) -> str:
    name = table.get("name") if isinstance(table, Mapping) else None
    return (
        f"listener {discreet(name, 60)!r}"
        if isinstance(name, str) and name
        else f"listener {number}"
    )


def _listener(table: Any) -> Listener:
    if isinstance(table, Mapping):
        for key in table:
            if key not in _KEYS:
                raise Malformed(
                    f"{discreet(key, 60)!r} is no key of a listener: there are {', '.join(sorted(_KEYS))}"
                )
    try:
        read = msgspec.convert(table, ListenerTable)
    except msgspec.ValidationError as error:
        raise Malformed(printable(str(error), 200)) from None
    return listener_of(read, lambda key: key)
