"""``mesh-ctl cert``: the command lines about certificates."""

from collections.abc import Callable
from pathlib import Path

import click

from twisted_mesh.cli.ctl.options import (
    REASONS,
    Reach,
    format_option,
    must_be_answered,
    output_file,
    reaching,
    yes_option,
)
from twisted_mesh.cli.program import Unusable

_NARROWING = (
    click.option(
        "--spiffe-id",
        metavar="PATTERN",
        help="Of this SPIFFE ID, or of the subtree that ends in /**.",
    ),
    click.option(
        "--key",
        metavar="SHA256|FILE",
        help="For the key with this SHA-256 (of its SPKI), or of this certificate, CSR or public key.",
    ),
    click.option("--entry", metavar="ID", help="Bought by this registration entry."),
    click.option("--agent", metavar="ID", help="Obtained by this agent, or its own."),
    click.option(
        "--issuer",
        metavar="SHA256|FILE",
        help="From the issuing CA whose key has this SHA-256, or that has this certificate.",
    ),
    click.option("--issued-after", metavar="TIME", help="Like 2026-11-23T10:00:00Z."),
    click.option("--issued-before", metavar="TIME", help="Like 2026-11-23T10:00:00Z."),
    click.option("--expires-after", metavar="TIME", help="Like 2026-11-23T10:00:00Z."),
    click.option("--expires-before", metavar="TIME", help="Like 2026-11-23T10:00:00Z."),
)


def narrowing(command: Callable[..., int]) -> Callable[..., int]:
    """Give ``command`` the options that say which certificates it is about; all that are given must match."""
    for option in reversed(_NARROWING):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """List, show, revoke and export certificates.

    \b
    Examples:
      mesh-ctl cert list --spiffe-id 'spiffe://mesh.local/service/**' --status valid
      mesh-ctl cert revoke --spiffe-id spiffe://mesh.local/service/api --dry-run
    """


@command.command("list")
@click.option(
    "--status",
    type=click.Choice(["pending", "valid", "revoked", "expired"]),
    help="Only those.",
)
@click.option("--serial", metavar="S", help="With this serial number, in hex.")
@narrowing
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--all", "all_", is_flag=True, help="All there are, whatever --limit says.")
@reaching
@format_option
def list_(*, reach: Reach, limit: int, all_: bool, format_: str, **filters: str | None) -> int:
    """List certificates, newest first. Every filter that is given must match.

    \b
    Examples:
      mesh-ctl cert list
      mesh-ctl cert list --status valid --expires-before 2026-11-24T00:00:00Z --all
      mesh-ctl cert list --spiffe-id 'spiffe://mesh.local/service/**' --format json
      mesh-ctl cert list --key web.csr
    """
    from twisted_mesh.cli.ctl import cert_actions
    from twisted_mesh.cli.ctl.cert_filters import understood
    from twisted_mesh.cli.ctl.session import administer

    most = None if all_ else limit
    return administer(reach, cert_actions.Listing(understood(filters), most, format_ == "json"))


@command.command()
@click.argument("serial")
@reaching
@format_option
def show(*, reach: Reach, serial: str, format_: str) -> int:
    """Show what the CA's record has of one certificate, and the certificate itself as PEM.

    \b
    Examples:
      mesh-ctl cert show 47:E8:F7:F3:E4:98:BE:8D:7F:79:58:54:3F:34:D4:CD
      mesh-ctl cert show 47e8f7f3e498be8d7f7958543f34d4cd | pki-inspect show -
    """
    from pki.serial import parse_serial
    from twisted_mesh.cli.ctl import cert_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, cert_actions.Showing(parse_serial(serial), format_ == "json"))


@command.command()
@click.option("--serial", "serials", multiple=True, metavar="S", help="This one. Repeatable.")
@narrowing
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    default="unspecified",
    show_default=True,
    help="Why (RFC 5280).",
)
@click.option("--dry-run", is_flag=True, help="List what would be revoked, and revoke nothing.")
@yes_option
@reaching
@format_option
def revoke(
    *,
    reach: Reach,
    serials: tuple[str, ...],
    reason: str,
    dry_run: bool,
    yes: bool,
    format_: str,
    **filters: str | None,
) -> int:
    """Revoke certificates, for good. What is revoked already stays as it is.

    All that is given must match. Expired certificates are revoked by --serial only. With nothing but
    an issuer or times it is about everybody, and asks for the number; the CA's own certificates are
    then left out.

    A revoked workload that a registration entry still lets in gets another certificate. To end that,
    delete the entry first: cert show names it, and mesh-ctl entry delete deletes it.

    \b
    Examples:
      mesh-ctl cert revoke --serial 47E8F7F3E498BE8D7F7958543F34D4CD --reason keyCompromise
      mesh-ctl cert revoke --spiffe-id 'spiffe://mesh.local/region/eu/**' --dry-run
      mesh-ctl cert revoke --key stolen.pem --reason keyCompromise --yes
      mesh-ctl cert revoke --entry 5d0a3b7c9e1f2a48 --issued-before 2026-11-23T10:00:00Z
    """
    from pki.serial import parse_serial
    from pki.svid.revocation_set import Reason
    from twisted_mesh.cli.ctl.cert_filters import understood
    from twisted_mesh.cli.ctl.cert_revoke import Revoking, Selection
    from twisted_mesh.cli.ctl.session import administer

    selection = Selection(tuple(dict.fromkeys(map(parse_serial, serials))), understood(filters))
    if not selection.serials and not selection.filters:
        raise Unusable(
            "say which certificates: --serial, --spiffe-id, --key, --entry, --agent, --issuer, or when they were "
            "issued or end"
        )
    if not dry_run:
        must_be_answered(yes)
    work = Revoking(selection, Reason(reason), dry_run=dry_run, yes=yes, as_json=format_ == "json")
    return administer(reach, work)


@command.command()
@click.argument("file", required=False)
@reaching
def export(*, reach: Reach, file: str | None) -> int:
    """Write the whole record, one JSON object a line, newest first.

    FILE is written whole or not at all; without it, standard output gets all lines at the end.

    \b
    Examples:
      mesh-ctl cert export certificates.jsonl
      mesh-ctl cert export | jq -r 'select(.status == "valid") | .spiffe_id'
    """
    from twisted_mesh.cli.ctl import cert_actions
    from twisted_mesh.cli.ctl.session import administer

    path: Path | None = output_file(file) if file is not None else None
    return administer(reach, cert_actions.Exporting(path))
