"""``mesh-ctl entry``: the command lines about registration entries."""

from typing import Any

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
    """Create, list, show and delete registration entries.

    An entry says which callers may have which SPIFFE IDs. A certificate is bought by an entry and by
    nothing else, at each renewal again. Entries are made and deleted, never changed.

    \b
    Examples:
      mesh-ctl entry list
      mesh-ctl entry create --selector unix:user:api --spiffe-id spiffe://mesh.local/service/api
    """


@command.command()
@click.option(
    "--selector",
    "selectors",
    multiple=True,
    required=True,
    metavar="S",
    help="What must be proven, like unix:uid:1000. Repeatable, all must be.",
)
@click.option(
    "--spiffe-id",
    required=True,
    metavar="ID",
    help="What may be had: an ID, or a template with *, ** and facts in braces.",
)
@dns_option
@ip_option
@click.option("--ttl", metavar="T", help="How long certificates live if nobody asks otherwise.")
@click.option("--max-ttl", metavar="T", help="How long they live at most.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ALGORITHM",
    help="A kind of key that they may have, like ec-p256. Repeatable.",
)
@click.option(
    "--common-name",
    metavar="NAME",
    help="What the subject has in place of the ID's last segment; no other entry has it.",
)
@click.option(
    "--parent",
    "parents",
    multiple=True,
    metavar="ID",
    help="The agent through which alone it counts, spiffe://TD/mesh/agent/NAME, or an alias, …/mesh/alias/NAME.",
)
@click.option(
    "--hint", metavar="TEXT", help="What a workload with several IDs is told this one is for."
)
@federates_option
@click.option(
    "--reattest",
    is_flag=True,
    help="Have evidence of the platform shown at each renewal: a certificate alone renews nothing.",
)
@click.option("--comment", metavar="TEXT", default="", help="For whoever reads it: one line.")
@reason_option
@reaching
@format_option
def create(*, reach: Reach, parents: tuple[str, ...], format_: str, **said: Any) -> int:
    """Let whoever has all the selectors have a certificate of that SPIFFE ID.

    Selectors: unix:uid:1000, unix:gid:1000, unix:user:alice, systemd:unit:api.service, token:LABEL and
    x509:SPIFFE-ID. In braces: {unix.uid}, {unix.user}, {systemd.unit}, {token}, one in a path segment
    and not in the first; {trust_domain}.

    With --parent it is for workloads of that agent's machine, and the selectors are what the agent
    states. Without, the CA itself must see them. With --reattest it must see them again each time.

    \b
    Examples:
      mesh-ctl entry create --selector systemd:unit:api.service --selector unix:uid:1000 \\
          --spiffe-id spiffe://mesh.local/service/api --dns api.example --max-ttl 1h
      mesh-ctl entry create --selector unix:gid:100 \\
          --spiffe-id 'spiffe://{trust_domain}/user/{unix.user}' --reason 'ticket 4711'
      mesh-ctl entry create --parent spiffe://mesh.local/mesh/agent/node-1 \\
          --selector unix:user:web --spiffe-id spiffe://mesh.local/service/web
    """
    from twisted_mesh.cli.ctl import entry_actions
    from twisted_mesh.cli.ctl.session import administer

    if len(parents) > 1:
        raise Unusable(
            f"--parent: an entry counts through one agent, and here are {len(parents)}: make one entry for each"
        )
    said["parent"] = parents[0] if parents else None
    said["federates_with"] = said["federates_with"] or None
    said["reattest"] = said["reattest"] or None
    new = entry_actions.understood(reach.trust_domain, said)
    return administer(reach, entry_actions.Creating(new, format_ == "json"))


@command.command("list")
@reaching
@format_option
def list_(*, reach: Reach, format_: str) -> int:
    """List all entries: those of the CA's record, those of its --entries file, and the default one.

    The default entry lets services of the CA's own user in, and counts only while the CA listens on
    loopback.

    \b
    Examples:
      mesh-ctl entry list
      mesh-ctl entry list --format json
    """
    from twisted_mesh.cli.ctl import entry_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, entry_actions.Listing(format_ == "json"))


@command.command()
@click.argument("entry")
@reaching
@format_option
def show(*, reach: Reach, entry: str, format_: str) -> int:
    """Show all of one entry.

    \b
    Examples:
      mesh-ctl entry show default
      mesh-ctl entry show 3f6c9a1be2d40718 --format json
    """
    from twisted_mesh.cli.ctl import entry_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, entry_actions.Showing(entry, format_ == "json"))


@command.command()
@click.argument("entry")
@reason_option
@yes_option
@reaching
@format_option
def delete(*, reach: Reach, entry: str, reason: str, yes: bool, format_: str) -> int:
    """Delete ENTRY and its tokens. It buys nothing any more, and what it bought is not renewed.

    Certificates that it bought stay good until they expire: revoke them with cert revoke if they must
    end now. An entry of the CA's --entries file is deleted there.

    \b
    Examples:
      mesh-ctl entry delete default
      mesh-ctl entry delete 3f6c9a1be2d40718 --reason 'machine sold' --yes
    """
    from twisted_mesh.cli.ctl import entry_actions
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    return administer(reach, entry_actions.Deleting(entry, reason, yes, format_ == "json"))
