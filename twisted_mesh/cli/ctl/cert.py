"""``mesh-ctl cert``: the command lines about certificates."""

from pathlib import Path
from typing import Any

import click

from twisted_mesh.cli.ctl.options import (
    Reach,
    Unusable,
    format_option,
    must_be_answered,
    output_file,
    reaching,
    yes_option,
)

_REASONS = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
)


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
    "--spiffe-id", metavar="PATTERN", help="Of this SPIFFE ID, or of the subtree that ends in /**."
)
@click.option(
    "--status",
    type=click.Choice(["pending", "valid", "revoked", "expired"]),
    help="Only those.",
)
@click.option("--serial", metavar="S", help="With this serial number, in hex.")
@click.option("--issuer", metavar="SHA256", help="From the CA whose key has this SHA-256.")
@click.option("--key", metavar="SHA256", help="For the key that has this SHA-256 (of its SPKI).")
@click.option("--issued-after", metavar="TIME", help="Like 2026-11-23T10:00:00Z.")
@click.option("--issued-before", metavar="TIME", help="Like 2026-11-23T10:00:00Z.")
@click.option("--expires-after", metavar="TIME", help="Like 2026-11-23T10:00:00Z.")
@click.option("--expires-before", metavar="TIME", help="Like 2026-11-23T10:00:00Z.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--all", "all_", is_flag=True, help="All there are, whatever --limit says.")
@reaching
@format_option
def list_(*, reach: Reach, limit: int, all_: bool, format_: str, **filters: Any) -> int:
    """List certificates, newest first. Every filter that is given must match.

    \b
    Examples:
      mesh-ctl cert list
      mesh-ctl cert list --status valid --expires-before 2026-11-24T00:00:00Z --all
      mesh-ctl cert list --spiffe-id 'spiffe://mesh.local/service/**' --format json
    """
    from pki.serial import parse_serial
    from twisted_mesh.cli.ctl import certificates
    from twisted_mesh.cli.ctl.filters import understood
    from twisted_mesh.cli.ctl.session import administer

    wanted = understood(filters)
    serial = wanted.pop("serial", None)
    if serial is not None and wanted:
        raise Unusable("--serial is one certificate: leave the other filters out")
    listing = certificates.Listing(
        wanted,
        None if all_ else limit,
        format_ == "json",
        None if serial is None else parse_serial(serial),
    )
    return administer(reach, listing)


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
    from twisted_mesh.cli.ctl import certificates
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, certificates.Showing(parse_serial(serial), format_ == "json"))


@command.command()
@click.option("--serial", "serials", multiple=True, metavar="S", help="This one. Repeatable.")
@click.option(
    "--spiffe-id",
    metavar="PATTERN",
    help="All that are valid or pending of this SPIFFE ID, or of the subtree that ends in /**.",
)
@click.option(
    "--reason",
    type=click.Choice(_REASONS),
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
    spiffe_id: str | None,
    reason: str,
    dry_run: bool,
    yes: bool,
    format_: str,
) -> int:
    """Revoke certificates, for good. What is revoked already stays as it is.

    A revoked workload that a registration entry still lets in gets another certificate. To end that,
    delete the entry first: cert show names it, and mesh-ctl entry delete deletes it.

    \b
    Examples:
      mesh-ctl cert revoke --serial 47E8F7F3E498BE8D7F7958543F34D4CD --reason keyCompromise
      mesh-ctl cert revoke --spiffe-id 'spiffe://mesh.local/region/eu/**' --dry-run
      mesh-ctl cert revoke --spiffe-id spiffe://mesh.local/service/api --yes
    """
    from pki.revocation import Reason
    from pki.serial import parse_serial
    from twisted_mesh.cli.ctl import revoking
    from twisted_mesh.cli.ctl.filters import understood
    from twisted_mesh.cli.ctl.session import administer

    if not serials and spiffe_id is None:
        raise Unusable("say which certificates: --serial S, or --spiffe-id PATTERN")
    if not dry_run:
        must_be_answered(yes)
    work = revoking.Revoking(
        tuple(dict.fromkeys(map(parse_serial, serials))),
        understood({"spiffe_id": spiffe_id}) if spiffe_id is not None else None,
        Reason(reason),
        dry_run=dry_run,
        yes=yes,
        as_json=format_ == "json",
    )
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
    from twisted_mesh.cli.ctl import certificates
    from twisted_mesh.cli.ctl.session import administer

    path: Path | None = output_file(file) if file is not None else None
    return administer(reach, certificates.Exporting(path))
