"""``pki-inspect needs-renewal``: whether it is time, for a script's ``if``.

Nothing is imported here but click: the command loads cryptography when it runs, so ``--help`` is quick.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.inspect_input import (
    AT,
    FORMAT,
    judged_certificates,
    moment_of,
    print_result,
    source_name,
)
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED

if TYPE_CHECKING:
    from pki.validity import Validity

_SHARE = 0.5


@click.command("needs-renewal")
@click.argument("file", metavar="FILE")
@click.option(
    "--within", metavar="DURATION", help="Say yes when no more than that is left, like 8h or 15m."
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="S",
    help=f"Say yes once that share of its life is over, from 0 to 1; {_SHARE} if nothing is said.",
)
@AT
@FORMAT
def needs_renewal(
    file: str, within: str | None, share: float | None, at: str | None, format_: str
) -> int:
    """Say whether a certificate is to be renewed. What has expired is.

    FILE holds the certificate in PEM or DER, of a chain the first; - is standard input. Only its dates
    count: whether it is trusted or revoked, verify says.

    Exit status: 0 yes; 1 no, not yet; 2 it cannot be read, so look before you take that for a no.

    \b
    Examples:
      pki-inspect needs-renewal me/svid.pem && mesh-client --export me
      pki-inspect needs-renewal svid.pem --within 8h
      pki-inspect needs-renewal svid.pem --share 0.66 --format json
    """
    from pki.svid.x509svid import subject_of, validity_of

    now = moment_of(at)
    if within is not None and share is not None:
        raise Unusable("--within and --share are two ways to say when: give one of them")
    cert = judged_certificates(file)[0]
    life = validity_of(cert)
    due = _due(life, within, share)
    is_due = now >= due
    if format_ == "json":
        print_result(_json(source_name(file), subject_of(cert), life, due, now))
    else:
        print_result(_text(source_name(file), life, due, now))
    return DONE if is_due else REFUSED


def _due(life: "Validity", within: str | None, share: float | None) -> datetime:
    """From when on the answer is yes. Raises :class:`Unusable`."""
    from pki.errors import PkiError
    from pki.validity import parse_duration

    if within is None:
        whole = max(life.not_after - life.not_before, timedelta())
        return life.not_before + whole * (_SHARE if share is None else share)
    try:
        left = parse_duration(within)
    except PkiError as error:
        raise Unusable(f"--within: {error}") from None
    earliest = datetime.min.replace(tzinfo=UTC)
    return life.not_after - min(left, life.not_after - earliest)


def _text(source: str, life: "Validity", due: datetime, now: datetime) -> str:
    from pki.validity import rfc3339, spoken_duration
    from twisted_mesh.cli.inspect_output import bad, good

    if now > life.not_after:
        ends = (
            f"it expired {spoken_duration(now - life.not_after)} ago, at {rfc3339(life.not_after)}"
        )
    else:
        ends = f"{spoken_duration(life.not_after - now)} are left, until {rfc3339(life.not_after)}"
    if now >= due:
        return f"{bad('renew')}  {source}: {ends}; due since {rfc3339(due)}"
    return f"{good('not yet')}  {source}: {ends}; due in {spoken_duration(due - now)}, at {rfc3339(due)}"


def _json(source: str, subject: str, life: "Validity", due: datetime, now: datetime) -> str:
    from pki.validity import rfc3339

    return json.dumps(
        {
            "needs_renewal": now >= due,
            "source": source,
            "subject": subject,
            "not_before": rfc3339(life.not_before),
            "not_after": rfc3339(life.not_after),
            "seconds_left": int((life.not_after - now).total_seconds()),
            "due_at": rfc3339(due),
        },
        indent=2,
    )
