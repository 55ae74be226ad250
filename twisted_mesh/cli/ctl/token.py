"""``mesh-ctl token``: the command lines about join tokens."""

import click

from twisted_mesh.cli.ctl.options import (
    Reach,
    dns_option,
    federates_option,
    format_option,
    ip_option,
    must_be_answered,
    reaching,
    reason_option,
    yes_option,
)
from twisted_mesh.cli.program import Unusable


@click.group()
def command() -> None:
    """Create, list and revoke join tokens.

    A join token buys one certificate, once, within minutes. With it a new machine proves who it is.

    \b
    Examples:
      mesh-ctl token create --spiffe-id spiffe://mesh.local/service/web
      mesh-ctl token list
    """


@command.command()
@click.option(
    "--spiffe-id", metavar="ID", help="The SPIFFE ID that it buys, by an entry of its own."
)
@dns_option
@ip_option
@federates_option
@click.option("--cert-ttl", metavar="T", help="The most that the certificate may live.")
@click.option("--entry", metavar="ID", help="Instead: what this registration entry buys.")
@click.option("--ttl", metavar="T", help="How long the token may be used.  [default: 10m]")
@click.option(
    "--key", metavar="SHA256", help="Only for the key that has this SHA-256 (of its SPKI)."
)
@click.option("--csr", metavar="FILE", help="Only for the key of this certificate request (PEM).")
@reason_option
@reaching
@format_option
def create(
    *,
    reach: Reach,
    spiffe_id: str | None,
    dns_names: tuple[str, ...],
    ip_addresses: tuple[str, ...],
    federates_with: tuple[str, ...],
    cert_ttl: str | None,
    entry: str | None,
    ttl: str | None,
    key: str | None,
    csr: str | None,
    reason: str,
    format_: str,
) -> int:
    """Create a join token, and show it this once, with a line to copy to the new machine.

    Renewals need no token: they last as long as the entry that the token belongs to.

    Other users of a machine can see the options of its programs: where there are any, put the token
    into a file of mode 0600 and name that with --join-token-file.

    \b
    Examples:
      mesh-ctl token create --spiffe-id spiffe://mesh.local/service/web
      mesh-ctl token create --spiffe-id spiffe://mesh.local/service/web --dns www.example --ttl 1h
      mesh-ctl token create --spiffe-id spiffe://mesh.local/service/web --csr web.csr
      mesh-ctl token create --entry 3f6c9a1be2d40718 --reason 'ticket 4711' --format json
    """
    from twisted_mesh.cli.ctl import token_actions
    from twisted_mesh.cli.ctl.session import administer

    if (spiffe_id is None) == (entry is None):
        raise Unusable("say what it buys: --spiffe-id ID, or --entry ID of an entry that there is")
    if entry is not None and (dns_names or ip_addresses or federates_with or cert_ttl):
        raise Unusable(
            "--dns, --ip, --federates-with and --cert-ttl are said by the entry: leave them or --entry out"
        )
    if key is not None and csr is not None:
        raise Unusable("--key and --csr name the same thing: leave one of them out")
    new = token_actions.understood(
        entry=entry,
        spiffe_id=spiffe_id,
        dns_names=dns_names,
        ip_addresses=ip_addresses,
        federates_with=federates_with,
        cert_ttl=cert_ttl,
        ttl=ttl,
        key=key if csr is None else token_actions.key_of(csr),
        reason=reason,
    )
    return administer(reach, token_actions.Creating(new, format_ == "json"))


@command.command("list")
@reaching
@format_option
def list_(*, reach: Reach, format_: str) -> int:
    """List join tokens, newest first: by their ids, since nobody can show a token again.

    \b
    Examples:
      mesh-ctl token list
      mesh-ctl token list --format json
    """
    from twisted_mesh.cli.ctl import token_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, token_actions.Listing(format_ == "json"))


@command.command()
@click.argument("token")
@reason_option
@yes_option
@reaching
@format_option
def revoke(*, reach: Reach, token: str, reason: str, yes: bool, format_: str) -> int:
    """Revoke TOKEN, by its id or its text. What it has bought already stays, and may be renewed.

    \b
    Examples:
      mesh-ctl token revoke 9c1185a5c5e9
      mesh-ctl token revoke 9c1185a5c5e9 --reason 'sent to the wrong list' --yes
    """
    from twisted_mesh.cli.ctl import token_actions
    from twisted_mesh.cli.ctl.session import administer

    token_id = token_actions.id_of(token)
    must_be_answered(yes)
    return administer(reach, token_actions.Revoking(token_id, reason, yes, format_ == "json"))
