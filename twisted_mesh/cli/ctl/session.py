"""One run of ``mesh-ctl`` on the reactor: an administrator's client, some work, an exit status."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner

from pki.errors import Malformed, PkiError
from pki.spiffe import TrustDomain
from pki.validity import parse_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.client import CaRefused
from twisted_mesh.cli.ctl.options import Reach
from twisted_mesh.cli.ctl.output import say
from twisted_mesh.identity.bootstrap import administrator_client
from twisted_mesh.runtime.clock import steady
from twisted_mesh.state.directory import StateError
from twisted_mesh.tls.alerts import RefusedByPeer, Unreachable

reactor: Any = steady(_reactor)

DONE, REFUSED, UNUSABLE, UNREACHABLE = 0, 1, 2, 3
#: Codes that mean that the other side could not be talked to, as opposed to saying no.
_AWAY = {"unreachable", "interrupted", "not-tls", "not-http", "tls-error"}


def administer(reach: Reach, work: Callable[[Administration], Awaitable[int]]) -> int:
    """Do ``work`` with a client of the CA; its exit status. What the CA says against it is told."""
    administration = Administration(_client(reach))
    outcome: list[int | BaseException] = []

    async def run() -> None:
        try:
            outcome.append(await work(administration))
        except BaseException as error:
            outcome.append(error)
        finally:
            if reactor.running:  # or a signal has ended it
                reactor.stop()

    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
    reactor.run()
    if not outcome:
        raise click.Abort
    if isinstance(outcome[0], PkiError):
        say(str(outcome[0]))
        return _status_of(outcome[0])
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _client(reach: Reach) -> Any:
    timeout = parse_duration(reach.timeout).total_seconds()
    if not timeout:
        raise Malformed("--timeout is at least 1s")
    return administrator_client(
        reactor,
        reach.ca_url,
        reach.ca_file,
        reach.state,
        TrustDomain.parse(reach.trust_domain),
        ca_fingerprint=reach.ca_fingerprint,
        svid=Path(reach.svid) if reach.svid else None,
        timeout=timeout,
    )


def _status_of(error: PkiError) -> int:
    """What an error means once the CA has been asked."""
    if isinstance(error, StateError):
        return UNUSABLE
    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, CaRefused):
        return UNREACHABLE if error.status >= 500 else REFUSED
    if isinstance(error, RefusedByPeer):
        return UNREACHABLE if error.problems[0].code in _AWAY else REFUSED
    return REFUSED
