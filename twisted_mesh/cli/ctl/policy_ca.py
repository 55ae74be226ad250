"""``mesh-ctl policy``: the command lines about the policy that a running CA asks."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl.options import (
    Reach,
    format_option,
    must_be_answered,
    reaching,
    reason_option,
    yes_option,
)


@click.command()
@reaching
@format_option
def show(*, reach: Reach, format_: str) -> int:
    """Show what is in force at the CA: the rules, and whether they are asked. Exit status 1 where they are not.

    \b
    Examples:
      mesh-ctl policy show
      mesh-ctl policy show --format json
    """
    from twisted_mesh.cli.ctl import policy_ca_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, policy_ca_actions.Showing(format_ == "json"))


@click.command()
@reason_option
@reaching
@format_option
def reload(*, reach: Reach, reason: str, format_: str) -> int:
    """Have the CA read the files of its --policy again, as SIGHUP does. It ends a withdrawal.

    A policy that cannot be used is refused, and the one before stays in force.

    \b
    Examples:
      mesh-ctl policy reload
      mesh-ctl policy reload --reason 'the night shift may renew'
    """
    from twisted_mesh.cli.ctl import policy_ca_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, policy_ca_actions.Reloading(reason, format_ == "json"))


@click.command()
@reason_option
@yes_option
@reaching
@format_option
def withdraw(*, reach: Reach, reason: str, yes: bool, format_: str) -> int:
    """Take the policy back: entries alone decide, until it is read again or the CA is started again.

    For when a policy has locked everybody out. It is done at the CA's own socket, is never subject to the policy, and
    is in the audit log, in the CA's log and in its health.

    \b
    Examples:
      mesh-ctl policy withdraw --reason 'nobody gets a certificate' --yes
    """
    from twisted_mesh.cli.ctl import policy_ca_actions
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    return administer(reach, policy_ca_actions.Withdrawing(reason, yes, format_ == "json"))


@click.command("dry-run")
@click.argument("path", metavar="FILE|DIR", type=click.Path(path_type=Path))
@click.option(
    "--last",
    metavar="N",
    type=click.IntRange(1, 2000),
    default=1000,
    show_default=True,
    help="How many of the latest requests.",
)
@reaching
@format_option
def dry_run(*, path: Path, last: int, reach: Reach, format_: str) -> int:
    """Ask another policy what the CA's was asked last, and list what would change. Exit status 1 if anything would.

    Each request is asked as it was, at its own time: a rule that reads the time decides as it would have then. Decision
    points outside are not asked; what rests on them is told.

    \b
    Examples:
      mesh-ctl policy dry-run new-policy/
      mesh-ctl policy dry-run new.toml --last 200 --format json
    """
    from twisted_mesh.cli.ctl import policy_ca_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, policy_ca_actions.DryRun(path, last, format_ == "json"))


#: What the group has of them.
COMMANDS = (show, reload, withdraw, dry_run)
