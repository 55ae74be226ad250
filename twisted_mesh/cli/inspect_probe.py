"""``pki-inspect probe``: looks at a TLS server and judges what it shows.

Nothing is imported here but click: the command loads the rest when it runs, so ``--help`` is quick.
"""

import click

from twisted_mesh.cli.inspect_input import (
    CT_LOGS,
    FORMAT,
    REQUIRE_SCT,
    certificates_to_judge,
    demanded_receipts,
    print_result,
    spiffe_patterns,
)
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED, UNREACHABLE
from twisted_mesh.cli.stdout import say

_LONGEST = 86400


@click.command()
@click.argument("target", metavar="HOST:PORT")
@click.option(
    "--svid",
    "directory",
    metavar="DIR",
    help="Present the identity there: svid.pem and svid_key.pem, as mesh-client and mesh-agent write them.",
)
@click.option(
    "--roots",
    multiple=True,
    metavar="FILE",
    help="Roots to trust; else those of --svid; for a server without a SPIFFE ID this system's. Repeatable.",
)
@click.option(
    "--hostname",
    "hostnames",
    multiple=True,
    metavar="N",
    help="A host name or address that it must be valid for; without a SPIFFE ID by default HOST. Repeatable.",
)
@click.option(
    "--spiffe-id",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="A SPIFFE ID that it must have; * is one path segment, a last ** any rest. Repeatable: all must match.",
)
@click.option("--servername", metavar="NAME", help="Whom to ask for (SNI); by default HOST.")
@click.option(
    "--alpn",
    "alpn",
    multiple=True,
    metavar="NAME",
    help="A protocol to offer, the dearest first; by default h2 and http/1.1. Repeatable.",
)
@click.option(
    "--tls",
    "tls_version",
    type=click.Choice(["1.0", "1.1", "1.2", "1.3"]),
    help="Offer this version alone; by default all, and the server takes which it likes.",
)
@click.option(
    "--starttls",
    type=click.Choice(["postgres", "smtp", "ldap"]),
    help="What is spoken there before TLS.",
)
@click.option(
    "--groups",
    "tries_groups",
    is_flag=True,
    help="Offer each group of key exchange alone too, a connection each, and say which the server takes.",
)
@CT_LOGS
@REQUIRE_SCT
@click.option(
    "--timeout",
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="How long all of it may take.",
)
@FORMAT
def probe(
    *,
    target: str,
    directory: str | None,
    roots: tuple[str, ...],
    hostnames: tuple[str, ...],
    patterns: tuple[str, ...],
    servername: str | None,
    alpn: tuple[str, ...],
    tls_version: str | None,
    starttls: str | None,
    tries_groups: bool,
    ct_logs: str | None,
    require_sct: int | None,
    timeout: str,
    format_: str,
) -> int:
    """Shake hands with a TLS server, and show what it speaks, shows and asks for.

    What it shows is judged as verify does it: as an SVID where it names a SPIFFE ID, else as a server
    of the web. With --svid it is told who we are, and whether it lets us in. Nothing else is sent.

    Exit status: 0 its chain is valid, and it has not refused us; 1 not so, or not judged for want of
    roots; 2 the options cannot be used; 3 it cannot be reached in time, or speaks no TLS.

    \b
    Examples:
      pki-inspect probe localhost:9443 --svid me
      pki-inspect probe localhost:9443 --svid me --spiffe-id 'spiffe://mesh.local/service/*'
      pki-inspect probe example.org:443
      pki-inspect probe example.org:443 --tls 1.2 --format json
      pki-inspect probe example.org:443 --groups
      pki-inspect probe localhost:9443 --svid me --ct-logs logs.json --require-sct 2
      pki-inspect probe db.example:5432 --starttls postgres --roots root.crt
    """
    from pathlib import Path

    from pki.errors import Malformed, PkiError
    from pki.validity import parse_duration
    from twisted_mesh.cli import inspect_probe_output
    from twisted_mesh.cli.inspect_probe_verdict import Trusted, judge_probed, system_roots
    from twisted_mesh.identity.exported import exported
    from twisted_mesh.runtime.clock import wall_clock
    from twisted_mesh.tls.conversation import Failed, Target
    from twisted_mesh.tls.probe import USUAL_ALPN, Wishes, server_name
    from twisted_mesh.tls.probe import probe as look
    from twisted_mesh.tls.probe_groups import probe_groups

    wanted = spiffe_patterns(patterns)
    demand = demanded_receipts(ct_logs, require_sct)
    lost: list[str] = []
    try:
        seconds = parse_duration(timeout).total_seconds()
        if not 1 <= seconds <= _LONGEST:
            raise Malformed("it is from 1s to 1d")
    except PkiError as error:
        raise Unusable(f"--timeout: {error}") from None
    try:
        where = Target.parse(target)
        identity, bundle = exported(Path(directory)) if directory else (None, None)
        wishes = Wishes(
            servername=server_name(
                servername or where.host, "--servername" if servername else "HOST"
            ),
            identity=identity,
            alpn=alpn or USUAL_ALPN.get(starttls or "", ()),
            version=tls_version or "",
            starttls=starttls or "",
            seconds=seconds,
        )
    except PkiError as error:
        raise Unusable(str(error)) from None
    named = roots or ((str(bundle),) if bundle else ())
    trusted = [Trusted(name, certificates_to_judge(name, lost)) for name in named]
    try:
        found = look(where, wishes)
    except Failed as failed:
        problem = failed.problem
        if format_ == "json":
            print_result(inspect_probe_output.failed_json(where, problem))
        say("pki-inspect", f"{problem.detail} ({problem.remedy})")
        return UNREACHABLE
    groups = probe_groups(where, wishes) if tries_groups else None
    judged = judge_probed(
        found,
        trusted,
        system_roots,
        patterns=wanted,
        hosts=hostnames,
        servername=wishes.servername,
        now=wall_clock(),
        demand=demand,
    )
    if format_ == "json":
        print_result(inspect_probe_output.probe_json(found, wishes, judged, lost, groups))
    else:
        print_result(inspect_probe_output.probe_text(found, wishes, judged, groups))
    for sentence in lost:
        say("pki-inspect", f"{sentence}; it was left out")
    return DONE if judged.ok and found.is_let_in else REFUSED
