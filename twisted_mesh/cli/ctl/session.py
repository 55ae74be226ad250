"""One run of ``mesh-ctl`` that asks a CA: an administrator's client, some work, an exit status. No reactor runs."""

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pki.errors import Malformed, PkiError
from pki.spiffe import TrustDomain
from pki.validity import parse_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.blocking_client import BlockingCaClient, Secures, result_of
from twisted_mesh.cli.ctl.options import Reach
from twisted_mesh.cli.status import UNUSABLE, status_of
from twisted_mesh.cli.stdout import say
from twisted_mesh.identity.ca_place import CaPlace
from twisted_mesh.runtime.open_files import LEAST_OPEN_FILES, too_few

#: What a command does with a client of the CA: called once, it is the exit status that comes of it. It raises
#: :class:`PkiError` where the CA refuses or is away.
Work = Callable[[Administration], Awaitable[int]]


def administer(reach: Reach, work: Work) -> int:
    """Do ``work``; its exit status. What the CA says against it is told.

    Raises :class:`PkiError` for a ``reach`` that cannot be used, and :class:`click.Abort` on Ctrl-C.
    """
    administration = Administration(client_of(reach))
    if lack := too_few(LEAST_OPEN_FILES):
        say("mesh-ctl", lack)
        return UNUSABLE
    _log_nothing()
    try:
        with _terminable():
            return result_of(work(administration))
    except KeyboardInterrupt:
        raise click.Abort from None
    except PkiError as error:
        say("mesh-ctl", str(error))
        return status_of(error)


def client_of(reach: Reach) -> BlockingCaClient:
    """Who asks the CA. Raises :class:`PkiError` for a ``reach`` that cannot be used."""
    timeout = parse_duration(reach.timeout).total_seconds()
    if not timeout:
        raise Malformed("--timeout is at least 1s")
    place = CaPlace.of_administrator(
        reach.ca_url,
        reach.ca_file,
        reach.state,
        TrustDomain.parse(reach.trust_domain),
        ca_fingerprint=reach.ca_fingerprint,
        ca_user=reach.ca_user,
        svid=Path(reach.svid) if reach.svid else None,
    )
    security = _secured(place) if place.address.scheme == "https" else None
    return BlockingCaClient(place.address, timeout, place.user, security)


def _secured(place: CaPlace) -> Secures:
    # Imported for a CA at https only: OpenSSL, and what of Twisted its judge is written with.
    from twisted_mesh.identity.blocking import blocking_tls

    return blocking_tls(place)


def _log_nothing() -> None:
    """What is logged by what was loaded is for nobody: else Twisted prints the worst of it."""
    if "twisted.logger" in sys.modules:
        from twisted.logger import globalLogBeginner

        globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, whatever it is in; either is a ``KeyboardInterrupt``."""
    before = [
        (number, signal.signal(number, signal.default_int_handler))
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
