"""The routes of connections: endpoints tell of theirs, administrators read who has told."""

from datetime import timedelta

import msgspec

from pki.errors import Malformed
from pki.serial import parse_serial
from pki.validity import format_duration
from twisted_mesh.ca.api.request import MAX_PAGE, Call, key_digest
from twisted_mesh.ca.api.response import Answer, told
from twisted_mesh.ca.connection_reports import Credential
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.json import parse_json

_LONGEST_NAME = 64
#: More connections than that no endpoint has.
_MOST = 10_000_000


class ReportRequest(msgspec.Struct):
    """``POST /api/v1/connections``: by issuer and serial, how many connections rest on a certificate."""

    instance: str
    connections: dict[str, dict[str, int]]
    goes_on: bool = False


async def tell(ca: CaParts, call: Call) -> Answer:
    asked = parse_json(call.body, ReportRequest)
    if not (0 < len(asked.instance) <= _LONGEST_NAME and asked.instance.isalnum()):
        raise Malformed(f"instance is a name of 1 to {_LONGEST_NAME} letters and digits")
    if sum(map(len, asked.connections.values())) > MAX_PAGE:
        raise Malformed(f"a report has at most {MAX_PAGE} certificates: send the others in a next")
    counts: dict[Credential, int] = {}
    for issuer, serials in asked.connections.items():
        key_digest(issuer, "connections")
        for serial, count in serials.items():
            if not 0 < count <= _MOST:
                raise Malformed(f"connections are counted from 1 to {_MOST}")
            counts[issuer, parse_serial(serial)] = count
    ca.reports.tell(call.principal.proof, asked.instance, counts, goes_on=asked.goes_on)
    return told({"again_after": _spoken(ca.reports.pace)})


async def read(ca: CaParts, call: Call) -> Answer:
    reports = ca.reports.all()
    own = ca.reports.own
    listed = [
        {"who": r.who, "credentials": r.credentials, "connections": r.connections}
        for r in reports[:MAX_PAGE]
    ]
    facts = {
        "endpoints": len(reports),
        "within": _spoken(ca.reports.lasts),
        "own": 0 if own is None else len(own),
        "reports": listed,
    }
    return told(facts)


def _spoken(seconds: float) -> str:
    return format_duration(timedelta(seconds=round(seconds)))
