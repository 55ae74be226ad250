"""The logs that are known: their keys, their URLs and how they stand, in the schema that the web's lists have (v3).

Of other people's lists all logs are read, those too that serve no tiles; what a list says besides is passed over.
"""

import base64
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Self

import msgspec
from attrs import define, evolve, field, frozen
from cryptography.exceptions import InvalidSignature

from pki.ct import document
from pki.ct.errors import BadLogList
from pki.ct.log_key import LogKey
from pki.ct.sct import milliseconds
from pki.errors import PkiError, discreet, printable
from pki.keys import KeyAlgorithm, PublicKey, SigningKey, signature_over, verify
from pki.svid.spki_pin import SpkiHash
from pki.validity import parse_rfc3339, rfc3339

#: Logs of one list. The web has about 100.
MOST_LOGS = 500
_MOST_PINS = 16
_SUBMISSION = re.compile(r"https://[A-Za-z0-9\-._~:\[\]/%]{1,200}", re.ASCII)
_MONITORING = re.compile(r"https?://[A-Za-z0-9\-._~:\[\]/%]{1,200}", re.ASCII)
_VERSION = "1.0.0"


class LogState(StrEnum):
    """How a log stands, as the web's lists have it."""

    PENDING = "pending"
    QUALIFIED = "qualified"
    USABLE = "usable"
    READONLY = "readonly"
    """It takes nothing any more, and can be read."""
    RETIRED = "retired"
    """What it has signed before counts for as long as that is valid."""
    REJECTED = "rejected"


@frozen
class Log:
    """A log, as whoever relies on it knows it."""

    description: str
    key: LogKey
    submission_url: str = field()
    monitoring_url: str = field()
    """Where its checkpoint, tiles and issuers are; empty for a log that has none."""
    state: LogState = LogState.USABLE
    state_since: datetime | None = None
    tls_pins: tuple[SpkiHash, ...] = ()
    """The keys that its own TLS may have; none where a public CA vouches for it."""
    mmd: int = 60
    """Seconds until an entry must be in the tree. With us it is before the receipt is given."""
    operator: str = "mesh"

    @submission_url.validator
    def _demand_submission_url(self, _: object, url: str) -> None:
        if not _SUBMISSION.fullmatch(url):
            raise BadLogList(
                f"submission_url {discreet(url, 100)!r} is none of a log: https://HOST[:PORT]/PATH, and no more"
            )

    @monitoring_url.validator
    def _demand_monitoring_url(self, _: object, url: str) -> None:
        if url and not _MONITORING.fullmatch(url):
            raise BadLogList(
                f"monitoring_url {discreet(url, 100)!r} is none of a log: https://HOST[:PORT]/PATH, and no more"
            )

    def __attrs_post_init__(self) -> None:
        if self.state is not LogState.USABLE and self.state_since is None:
            raise BadLogList(
                f"a log is {self.state} since some time, and of this one it is not said since when"
            )

    @property
    def log_id(self) -> bytes:
        """What its receipts name it by."""
        return self.key.log_id

    @property
    def origin(self) -> str:
        """What its checkpoints name it by: the submission URL without scheme and slashes at its end."""
        return origin_of(self.submission_url)

    def submission(self, path: str) -> str:
        """The URL of a call: ``ct/v1/add-chain``."""
        return f"{self.submission_url.rstrip('/')}/{path}"

    def monitoring(self, path: str) -> str:
        """The URL of what can be read: ``checkpoint``, ``tile/0/000``."""
        return f"{self.monitoring_url.rstrip('/')}/{path}"

    def objection_to(self, timestamp: int) -> str:
        """Why a receipt of that time does not count, in words; empty where it does."""
        if self.state in (LogState.REJECTED, LogState.PENDING):
            return f"that log is {self.state}: none of its receipts counts"
        since = self.state_since
        is_over = self.state in (LogState.READONLY, LogState.RETIRED)
        if is_over and since is not None and timestamp > milliseconds(since):
            return f"that log is {self.state} since {rfc3339(since)}, and it is from after that"
        return ""

    def retired(self, state: LogState, at: datetime) -> "Log":
        """The same log in another state, from that time on."""
        return evolve(self, state=state, state_since=at)


def origin_of(submission_url: str) -> str:
    """The origin of a log by its submission URL (C2SP static-ct-api)."""
    return submission_url.partition("://")[2].rstrip("/")


class _State(msgspec.Struct):
    timestamp: str


class _TiledLog(msgspec.Struct, omit_defaults=True):
    description: str
    log_id: str
    key: str
    submission_url: str
    monitoring_url: str
    mmd: Annotated[int, msgspec.Meta(ge=0, le=7 * 86400)]
    state: dict[str, _State] = {}
    tls_pins: list[str] = []


class _OldLog(msgspec.Struct):
    key: str
    url: str
    log_id: str
    description: str = ""
    mmd: Annotated[int, msgspec.Meta(ge=0, le=7 * 86400)] = 86400
    state: dict[str, _State] = {}


class _Operator(msgspec.Struct):
    name: str
    logs: list[_OldLog] = []
    tiled_logs: list[_TiledLog] = []


class _List(msgspec.Struct):
    version: str
    log_list_timestamp: str
    operators: list[_Operator]


@define(frozen=True, slots=False)
class LogList:
    """Logs, no two with one key or one origin. ``LogList.parse(x.to_bytes()) == x``."""

    logs: tuple[Log, ...]
    timestamp: datetime | None = None
    """When it was made."""

    def __attrs_post_init__(self) -> None:
        if len(self.logs) > MOST_LOGS:
            raise BadLogList(f"it has {len(self.logs)} logs, and {MOST_LOGS} is the most")
        for what, values in (
            ("key", [log.log_id for log in self.logs]),
            ("submission URL", [log.origin for log in self.logs]),
        ):
            if len(set(values)) < len(values):
                twice = next(log for i, log in enumerate(self.logs) if values[i] in values[:i])
                raise BadLogList(
                    f"two logs in it have one {what}, one of them {printable(twice.description, 80)!r}: they would "
                    "count twice"
                )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`BadLogList`."""
        try:
            found = document.read(data, _List)
            logs = []
            for operator in found.operators:
                logs += [_old(log, operator.name) for log in operator.logs]
                logs += [_tiled(log, operator.name) for log in operator.tiled_logs]
            return cls(tuple(logs), parse_rfc3339(found.log_list_timestamp))
        except BadLogList as error:
            raise BadLogList(f"the list of logs cannot be used: {error}") from None
        except PkiError as error:
            raise BadLogList(
                f"the list of logs cannot be used: {error} (it is JSON, as mesh-ctlog writes its entry)"
            ) from None

    def to_bytes(self) -> bytes:
        """The document, which :meth:`parse` reads. Logs that serve no tiles are written as others write them."""
        operators: dict[str, _Operator] = {}
        for log in self.logs:
            operator = operators.setdefault(log.operator, _Operator(log.operator))
            shared = {
                "description": log.description,
                "log_id": base64.b64encode(log.log_id).decode(),
                "key": str(log.key),
                "mmd": log.mmd,
                "state": _state_of(log),
            }
            if log.monitoring_url:
                pins = [str(pin) for pin in log.tls_pins]
                urls = {"submission_url": log.submission_url, "monitoring_url": log.monitoring_url}
                operator.tiled_logs.append(
                    msgspec.convert({**shared, **urls, "tls_pins": pins}, _TiledLog)
                )
            else:
                operator.logs.append(
                    msgspec.convert({**shared, "url": log.submission_url}, _OldLog)
                )
        at = self.timestamp
        text = "1970-01-01T00:00:00Z" if at is None else rfc3339(at)
        return document.write(_List(_VERSION, text, list(operators.values())))

    @cached_property
    def _by_id(self) -> Mapping[bytes, Log]:
        return {log.log_id: log for log in self.logs}

    def log_of(self, log_id: bytes) -> Log | None:
        """The log of that ID; None for one that is not in the list."""
        return self._by_id.get(log_id)

    def log_at(self, origin: str) -> Log | None:
        """The log of that origin."""
        return next((log for log in self.logs if log.origin == origin), None)

    def without(self, log_ids: Collection[bytes]) -> "LogList":
        """Without these; the same object where none of them is in it."""
        left = tuple(log for log in self.logs if log.log_id not in log_ids)
        return self if len(left) == len(self.logs) else evolve(self, logs=left)


def _state_of(log: Log) -> dict[str, dict[str, str]]:
    if log.state_since is None:
        return {}  # Log demands a time for every state but usable
    return {str(log.state): {"timestamp": rfc3339(log.state_since)}}


def _tiled(log: _TiledLog, operator: str) -> Log:
    if len(log.tls_pins) > _MOST_PINS:
        raise BadLogList(
            f"{len(log.tls_pins)} TLS pins of one log are too many: {_MOST_PINS} is the most"
        )
    pins = tuple(map(SpkiHash.parse, log.tls_pins))
    if not log.monitoring_url:
        raise BadLogList("a log that serves tiles has a monitoring_url")
    urls = log.submission_url, log.monitoring_url
    return Log(
        log.description,
        _key(log.key, log.log_id),
        *urls,
        *_state(log.state),
        pins,
        log.mmd,
        operator,
    )


def _old(log: _OldLog, operator: str) -> Log:
    key, state = _key(log.key, log.log_id), _state(log.state)
    return Log(log.description, key, log.url, "", *state, (), log.mmd, operator)


def _key(text: str, log_id: str) -> LogKey:
    key = LogKey.parse(text)
    if base64.b64encode(key.log_id).decode() != log_id:
        raise BadLogList(f"log_id {discreet(log_id, 60)!r} is not that of the key beside it")
    return key


def _state(states: Mapping[str, _State]) -> tuple[LogState, datetime | None]:
    if not states:
        return LogState.USABLE, None
    (name, state), *more = states.items()
    if more or name not in list(LogState):
        raise BadLogList(
            f"a log has one state of {', '.join(LogState)}, and one of these has {discreet(name, 40)!r}"
        )
    return LogState(name), parse_rfc3339(state.timestamp)


async def sign_list(logs: LogList, key: SigningKey) -> bytes:
    """What the file of the signature has: base64. Raises as :func:`pki.keys.signature_over`.

    A root's key signs certificates as well: no list begins as one of these does.
    """
    return base64.b64encode(await signature_over(logs.to_bytes(), key, key.public_key)) + b"\n"


def verify_signature(data: bytes, signature: bytes, key: PublicKey) -> None:
    """``signature`` is what :func:`sign_list` gives, or openssl dgst in base64. Raises :class:`BadLogList`."""
    algorithm = KeyAlgorithm.of(key)
    try:
        if algorithm is None or len(signature) > 16 * 1024:
            raise ValueError
        verify(
            key, base64.b64decode(b"".join(signature.split()), validate=True), data, algorithm.hash
        )
    except (ValueError, InvalidSignature):
        raise BadLogList(
            "the list of logs is not signed by the key that may sign it: have it signed anew (mesh-ctl ct logs sign); "
            "if nobody has changed it, somebody else has"
        ) from None
