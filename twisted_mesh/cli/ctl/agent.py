"""``mesh-ctl agent``: the command lines about agents."""

from typing import Any

import click

from twisted_mesh.cli.ctl.options import (
    Reach,
    format_option,
    must_be_answered,
    reaching,
    reason_option,
    yes_option,
)
from twisted_mesh.cli.program import Unusable

_dry_run = click.option(
    "--dry-run", is_flag=True, help="List what would be revoked, and change nothing."
)


@click.group()
def command() -> None:
    """Let agents join, list and show them, and end them.

    An agent (mesh-agent --name NAME) serves the workloads of one machine. Its own ID is
    spiffe://TD/mesh/agent/NAME, which a token of its own buys (agent token create), or what its
    platform proves of it (agent allow). A registration entry counts through it where that entry's
    parent is this ID, or an alias of it (agent alias; mesh-ctl entry create --parent).

    What an agent states of its workloads is its word: a stolen agent is every entry of its parent.

    \b
    Examples:
      mesh-ctl agent token create node-1
      mesh-ctl agent list
      mesh-ctl agent ban node-1 --reason 'machine stolen'
      mesh-ctl agent allow 'prod.{k8s_psat.agent_node_name}' --selector k8s_psat:cluster:prod
    """


_selector_option = click.option(
    "--selector",
    "selectors",
    multiple=True,
    required=True,
    metavar="S",
    help="What their platform must prove, like k8s_psat:cluster:prod. Repeatable, all must be.",
)
_comment_option = click.option(
    "--comment", metavar="TEXT", default="", help="For whoever reads it: one line."
)


@command.command()
@click.argument("template")
@_selector_option
@click.option(
    "--reattest",
    is_flag=True,
    help="Have them show evidence at each renewal too: a certificate alone renews nothing.",
)
@_comment_option
@reason_option
@reaching
@format_option
def allow(*, reach: Reach, template: str, format_: str, **said: Any) -> int:
    """Let agents in by what their platform proves, under names like TEMPLATE.

    The name has one fact in braces, by which an agent cannot take another's: the node's name or id,
    the instance's. The agent is started with that name and evidence (mesh-agent --name prod.node7
    --attest k8s), and listed from then on. Once nothing lets it in any more, its rights end.

    \b
    Examples:
      mesh-ctl agent allow 'prod.{k8s_psat.agent_node_name}' --selector k8s_psat:cluster:prod \\
          --selector k8s_psat:agent_ns:mesh --selector k8s_psat:agent_sa:mesh-agent
      mesh-ctl agent allow '{aws_iid.instance_id}' --selector aws_iid:tag:mesh:agent
    """
    from twisted_mesh.cli.ctl import agent_groups
    from twisted_mesh.cli.ctl.session import administer

    new = agent_groups.understood(template, reach.trust_domain, said, agent_groups.AGENTS_OPTION)
    return administer(reach, agent_groups.Allowing(new, format_ == "json"))


@command.command()
@click.argument("name")
@_selector_option
@_comment_option
@reason_option
@reaching
@format_option
def alias(*, reach: Reach, name: str, format_: str, **said: Any) -> int:
    """Call all agents by NAME of which their platform has proven all the selectors.

    A registration entry whose parent is spiffe://TD/mesh/alias/NAME counts through each of them. Nobody
    gets a certificate for that ID.

    \b
    Examples:
      mesh-ctl agent alias prod-nodes --selector k8s_psat:cluster:prod
      mesh-ctl entry create --parent spiffe://mesh.local/mesh/alias/prod-nodes \\
          --selector k8s:ns:shop --spiffe-id spiffe://mesh.local/ns/shop/sa/web
    """
    from twisted_mesh.cli.ctl import agent_groups
    from twisted_mesh.cli.ctl.session import administer

    new = agent_groups.understood(name, reach.trust_domain, said, agent_groups.ALIAS_OPTION)
    return administer(reach, agent_groups.Naming(new, format_ == "json"))


@command.command()
@reaching
@format_option
def claims(*, reach: Reach, format_: str) -> int:
    """List claims: what platforms vouch for once, and which certificate each has bought.

    A claim is used by the first key that shows it, and by no other, until it is evicted.

    \b
    Examples:
      mesh-ctl agent claims
      mesh-ctl agent evict 'aws_iid:123456789012:eu-west-1:i-0abc' --reason 'reinstalled'
    """
    from twisted_mesh.cli.ctl import agent_groups
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, agent_groups.Claims(format_ == "json"))


@command.group()
def token() -> None:
    """Create the join tokens of agents.

    \b
    Examples:
      mesh-ctl agent token create node-1
    """


@token.command()
@click.argument("name")
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
    name: str,
    ttl: str | None,
    key: str | None,
    csr: str | None,
    reason: str,
    format_: str,
) -> int:
    """Create a join token for the agent NAME, and show it this once, with a line for its machine.

    Renewals need no token: they last until the agent is evicted or banned. An agent that has lost
    its state comes back with another token, under the same NAME.

    \b
    Examples:
      mesh-ctl agent token create node-1
      mesh-ctl agent token create node-1 --ttl 1h --reason 'ticket 4711' --format json
    """
    from twisted_mesh.cli.ctl import agent_actions, token_actions
    from twisted_mesh.cli.ctl.session import administer

    if key is not None and csr is not None:
        raise Unusable("--key and --csr name the same thing: leave one of them out")
    key = key if csr is None else token_actions.key_of(csr)
    new = agent_actions.understood(name, ttl, key, reason)
    return administer(reach, agent_actions.Creating(new, format_ == "json"))


@command.command("list")
@reaching
@format_option
def list_(*, reach: Reach, format_: str) -> int:
    """List agents: those that a token was made for, those that have joined, those that are banned.

    \b
    Examples:
      mesh-ctl agent list
      mesh-ctl agent list --format json
    """
    from twisted_mesh.cli.ctl import agent_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, agent_actions.Listing(format_ == "json"))


@command.command()
@click.argument("name")
@reaching
@format_option
def show(*, reach: Reach, name: str, format_: str) -> int:
    """Show the agent NAME, and the entries that count through it.

    \b
    Examples:
      mesh-ctl agent show node-1
    """
    from twisted_mesh.cli.ctl import agent_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, agent_actions.Showing(agent_actions.checked(name), format_ == "json"))


@command.command()
@click.argument("name", metavar="NAME|CLAIM")
@reason_option
@_dry_run
@yes_option
@reaching
@format_option
def evict(*, reach: Reach, name: str, reason: str, dry_run: bool, yes: bool, format_: str) -> int:
    """Revoke the certificates of the agent NAME and all that it has obtained; it must join anew.

    Its connections, and those of its workloads, are cut. With a new token (mesh-ctl agent token
    create) an agent of that NAME may come again: its entries stay. One that came by its platform may
    come again by itself, also with evidence that counts once (mesh-ctl agent claims).

    With a CLAIM, which has colons in it: the same for what that has bought, be it an agent or not, and
    what was renewed of it.

    \b
    Examples:
      mesh-ctl agent evict node-1 --dry-run
      mesh-ctl agent evict node-1 --reason 'machine reinstalled' --yes
    """
    from twisted_mesh.cli.ctl import agent_actions
    from twisted_mesh.cli.ctl.session import administer

    if not dry_run:
        must_be_answered(yes)
    if ":" in name:
        from twisted_mesh.cli.ctl import agent_groups

        claim = agent_groups.Evicting(name, reason, dry_run, yes, format_ == "json")
        return administer(reach, claim)
    name = agent_actions.checked(name)
    ending = agent_actions.Ending("evict", name, reason, dry_run, yes, format_ == "json")
    return administer(reach, ending)


@command.command()
@click.argument("name")
@reason_option
@_dry_run
@yes_option
@reaching
@format_option
def ban(*, reach: Reach, name: str, reason: str, dry_run: bool, yes: bool, format_: str) -> int:
    """The same as evict, and no agent of that NAME may come again until it is unbanned.

    \b
    Examples:
      mesh-ctl agent ban node-1 --dry-run
      mesh-ctl agent ban node-1 --reason 'machine stolen' --yes
    """
    from twisted_mesh.cli.ctl import agent_actions
    from twisted_mesh.cli.ctl.session import administer

    if not dry_run:
        must_be_answered(yes)
    name = agent_actions.checked(name)
    ending = agent_actions.Ending("ban", name, reason, dry_run, yes, format_ == "json")
    return administer(reach, ending)


@command.command()
@click.argument("name")
@reason_option
@reaching
@format_option
def unban(*, reach: Reach, name: str, reason: str, format_: str) -> int:
    """Let an agent of that NAME come again, with a new token. What was revoked stays revoked.

    \b
    Examples:
      mesh-ctl agent unban node-1 --reason 'machine found'
    """
    from twisted_mesh.cli.ctl import agent_actions
    from twisted_mesh.cli.ctl.session import administer

    name = agent_actions.checked(name)
    ending = agent_actions.Ending("unban", name, reason, False, True, format_ == "json")
    return administer(reach, ending)
