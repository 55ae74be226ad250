"""Alerts: what a monitor has to tell people, as values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

import msgspec
from attrs import field, frozen

from pki.errors import Malformed, printable
from pki.validity import rfc3339

_LONGEST = 2000


class AlertKind(StrEnum):
    """What an alert is about: the same word in the log, metrics, JSON and the environment of a command."""

    NAME_SEEN = "name-seen"
    """A certificate names what is watched for."""
    UNEXPECTED_ISSUER = "unexpected-issuer"
    UNEXPECTED_KEY = "unexpected-key"
    CA_CERTIFICATE = "ca-certificate"
    """A certificate in the log may issue others."""
    UNREADABLE = "unreadable-entry"
    ODD_NAME = "odd-name"
    """What looks like a SPIFFE ID and is none, or several in one certificate."""
    NOT_ON_RECORD = "not-on-record"
    """The log has a certificate that the CA does not know of."""
    NOT_IN_LOG = "not-in-log"
    """The CA has issued a certificate that no log has."""
    NO_FINAL = "no-final"
    """A precertificate of which nothing has come."""
    FORKED = "ct-log-forked"
    ROLLED_BACK = "ct-log-rolled-back"
    CONTRADICTS = "tiles-contradict"
    """What the log serves is not what it has signed."""
    AWAY = "log-away"
    STALE = "head-too-old"
    CLOCK = "clock-wrong"
    CA_AWAY = "ca-away"
    """The record cannot be asked, so nothing is compared with it."""
    MORE = "more-alerts"
    """So many that they are not told one by one."""


#: Alerts about how things stand, which are told once when they begin and are over by themselves.
STANDING = frozenset(
    (
        AlertKind.FORKED,
        AlertKind.ROLLED_BACK,
        AlertKind.CONTRADICTS,
        AlertKind.AWAY,
        AlertKind.STALE,
        AlertKind.CLOCK,
        AlertKind.CA_AWAY,
    )
)


class _Written(msgspec.Struct):
    kind: AlertKind
    at: str
    detail: str
    log: str = ""
    facts: dict[str, str] = {}


_decode = msgspec.json.Decoder(_Written).decode


@frozen
class Alert:
    """One of them. ``Alert.parse(alert.to_bytes()) == alert``."""

    kind: AlertKind
    at: datetime
    """Whole seconds."""
    detail: str
    """A sentence."""
    log: str = ""
    """The log's origin; empty where it is about the CA."""
    facts: Mapping[str, str] = field(factory=dict)
    """Each value is ready to be shown: ``serial``, ``spiffe_id``, ``position``, ``evidence`` and so on."""

    @classmethod
    def of(
        cls, kind: AlertKind, at: datetime, detail: str, log: str = "", **facts: str | int
    ) -> Self:
        """Of texts that may come from strangers."""
        return cls(
            kind,
            at.astimezone(UTC).replace(microsecond=0),
            printable(detail, _LONGEST),
            printable(log, 300),
            {name: printable(str(value), _LONGEST) for name, value in facts.items() if value != ""},
        )

    def to_bytes(self) -> bytes:
        """JSON, one line."""
        return msgspec.json.encode(
            _Written(self.kind, rfc3339(self.at), self.detail, self.log, dict(self.facts))
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        try:
            read = _decode(data)
            at = datetime.fromisoformat(read.at)
        except (ValueError, RecursionError, msgspec.DecodeError):
            raise Malformed("this is no alert") from None
        return cls(read.kind, at, read.detail, read.log, read.facts)

    @property
    def environment(self) -> dict[str, str]:
        """For a command: ``MESH_ALERT_KIND``, ``…_DETAIL``, ``…_LOG``, and each fact. No shell looks at them."""
        told = {"kind": str(self.kind), "at": rfc3339(self.at), "detail": self.detail}
        told |= {"log": self.log, **self.facts, "json": self.to_bytes().decode()}
        return {f"MESH_ALERT_{name.upper()}": value for name, value in told.items()}
