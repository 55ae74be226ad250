"""The routes of connections: endpoints tell of theirs, administrators read who has told."""

from datetime import timedelta

from msgspec import UNSET, UnsetType

from pki.errors import Malformed
from pki.serial import parse_serial
from pki.svid.spki_pin import PinSet
from pki.validity import format_duration
from twisted_mesh.api.messages import (
    LARGEST_PAGE,
    ConnectionsReport,
    HeldPins,
    KnownConnections,
    Pinning,
    Reporter,
    ReportTaken,
    RequiredScts,
    RequiringScts,
    held_pins,
)
from twisted_mesh.ca.api.request import Call, demand_instance, key_digest
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.connection_reports import Credential
from twisted_mesh.ca.parts import CaParts

#: More connections than that no endpoint has.
_MOST = 10_000_000


async def tell(ca: CaParts, call: Call) -> Answer:
    """Take in a report; when the next one is wanted. Raises :class:`Malformed`."""
    asked = call.read(ConnectionsReport)
    demand_instance(asked.instance)
    if sum(map(len, asked.connections.values())) > LARGEST_PAGE:
        raise Malformed(
            f"a report has at most {LARGEST_PAGE} certificates: send the others in a next"
        )
    counts: dict[Credential, int] = {}
    for issuer, serials in asked.connections.items():
        key_digest(issuer, "connections")
        for serial, count in serials.items():
            if not 0 < count <= _MOST:
                raise Malformed(f"connections are counted from 1 to {_MOST}")
            counts[issuer, parse_serial(serial)] = count
    pins = _held(asked.pins)
    scts = None if isinstance(asked.require_sct, UnsetType) else asked.require_sct
    if not asked.goes_on:
        ca.sct_reports.tell(call.principal.proof, asked.instance, scts)
    ca.reports.tell(call.principal.proof, asked.instance, counts, goes_on=asked.goes_on)
    if not asked.goes_on:
        ca.pin_reports.tell(call.principal.proof, asked.instance, pins)
    return json_answer(ReportTaken(_spoken(ca.reports.pace(call.principal.proof))))


async def read(ca: CaParts, call: Call) -> Answer:
    """Who has told of how many, the first :data:`LARGEST_PAGE` of them by name."""
    reports = ca.reports.all()
    own = ca.reports.own
    listed = [Reporter(r.who, r.credentials, r.connections) for r in reports[:LARGEST_PAGE]]
    pinning = [Pinning(one.who, held_pins(one.pins)) for one in ca.pin_reports.all()[:LARGEST_PAGE]]
    requiring = [
        RequiringScts(one.who, RequiredScts(one.required, sorted(one.logs)))
        for one in ca.sct_reports.all()[:LARGEST_PAGE]
    ]
    return json_answer(
        KnownConnections(
            len(reports),
            _spoken(ca.reports.lasts),
            0 if own is None else len(own),
            listed,
            pinning or UNSET,
            requiring or UNSET,
        )
    )


def _held(told: HeldPins | UnsetType) -> PinSet:
    """Raises :class:`PkiError`."""
    if isinstance(told, UnsetType):
        return PinSet()
    until = None if isinstance(told.until, UnsetType) else told.until
    return PinSet.told(told.rules, told.mode, until)


def _spoken(seconds: float) -> str:
    return format_duration(timedelta(seconds=round(seconds)))
