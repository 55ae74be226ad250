"""How many logs must answer for a certificate, and whether endpoints that have said what they want are content."""

import base64
from collections.abc import Collection, Sequence
from typing import Protocol

from pki.ct.log_list import Log
from pki.errors import printable
from twisted_mesh.ca.transparency.errors import BadQuorum

#: So many endpoints are named.
_NAMED = 3


class Demand(Protocol):
    """How many SCTs an endpoint has said that it demands."""

    @property
    def who(self) -> str:
        """By what it has proven itself."""
        ...

    @property
    def required(self) -> int:
        """How many."""
        ...


class Demands(Protocol):
    """Those of all endpoints that have said it."""

    def refused_by(self, logs: Collection[str], quorum: int) -> Sequence[Demand]:
        """Who would refuse some certificate with SCTs of ``quorum`` of the logs with these IDs, in base64."""
        ...


def quorum_of(asked: int | None, logs: int) -> int:
    """How many of so many logs must answer: all but one unless it is said. Raises :class:`BadQuorum`."""
    if asked is None:
        return max(1, logs - 1)
    if not 1 <= asked <= logs:
        raise BadQuorum(f"--ct-quorum {asked}, and there are {logs} logs: say from 1 to {logs}")
    return asked


def ids_of(logs: Collection[Log]) -> list[str]:
    """Their IDs, as endpoints tell them."""
    return sorted(base64.b64encode(log.log_id).decode() for log in logs)


def shortfall(quorum: int, logs: Collection[Log], demands: Demands) -> str:
    """Which endpoints would refuse what is issued so, in words; empty where none would."""
    refused = demands.refused_by(ids_of(logs), quorum)
    if not refused:
        return ""
    most = max(one.required for one in refused)
    who = list(dict.fromkeys(one.who for one in refused))
    names = ", ".join(printable(name, 120) for name in who[:_NAMED]) + ", …" * (len(who) > _NAMED)
    many = "1 endpoint demands" if len(refused) == 1 else f"{len(refused)} endpoints demand"
    return f"{many} SCTs of up to {most} logs that they know ({names})"


def demand_quorum(quorum: int, logs: Collection[Log], demands: Demands) -> None:
    """Raises :class:`BadQuorum` where endpoints have said that they would refuse what is issued so."""
    if short := shortfall(quorum, logs, demands):
        said = f"--ct-quorum is {quorum} of {len(logs)} logs" if logs else "no --ct-log is given"
        raise BadQuorum(
            f"{said}, and {short}: they would refuse what this CA issues. Raise --ct-quorum, and give endpoints the "
            "same --ct-logs; or have them demand less first"
        )
