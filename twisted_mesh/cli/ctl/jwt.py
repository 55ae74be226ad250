"""``mesh-ctl jwt``: the command lines about the keys that sign JWT-SVIDs."""

import click

from twisted_mesh.cli.ctl.options import (
    Reach,
    format_option,
    must_be_answered,
    reaching,
    reason_option,
    yes_option,
)


@click.group()
def command() -> None:
    """List, rotate and retire the keys that sign JWT-SVIDs.

    The CA rotates them by itself: a key is published before it signs, and as long as a token of it can be good.

    \b
    Examples:
      mesh-ctl jwt list
      mesh-ctl jwt rotate
    """


@command.command("list")
@reaching
@format_option
def list_(*, reach: Reach, format_: str) -> int:
    """List the keys in the bundle, the oldest first.

    \b
    Examples:
      mesh-ctl jwt list
      mesh-ctl jwt list --format json
    """
    from twisted_mesh.cli.ctl import jwt_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, jwt_actions.Listing(format_ == "json"))


@command.command()
@click.option(
    "--now",
    "at_once",
    is_flag=True,
    help="At once: who keeps a copy of the bundle refuses at first.",
)
@reason_option
@yes_option
@reaching
@format_option
def rotate(*, reach: Reach, at_once: bool, reason: str, yes: bool, format_: str) -> int:
    """Have the next key sign as soon as it has been in the bundle for long enough. No token is refused by that.

    \b
    Examples:
      mesh-ctl jwt rotate --yes
      mesh-ctl jwt rotate --now --reason 'a new auditor' --yes
    """
    from twisted_mesh.cli.ctl import jwt_actions
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    return administer(reach, jwt_actions.Rotating(at_once, reason, yes, format_ == "json"))


@command.command()
@click.argument("kid")
@reason_option
@yes_option
@reaching
@format_option
def retire(*, reach: Reach, kid: str, reason: str, yes: bool, format_: str) -> int:
    """Take the key KID, or the one whose name begins like that, out of the bundle now, as where it was stolen.

    Every token of it is refused by whoever has the new bundle. Another key signs from then on.

    \b
    Examples:
      mesh-ctl jwt retire 3b1f7c20
      mesh-ctl jwt retire 3b1f7c20 --reason 'the backup disk was stolen' --yes
    """
    from twisted_mesh.cli.ctl import jwt_actions
    from twisted_mesh.cli.ctl.session import administer

    wanted = jwt_actions.beginning_of(kid)
    must_be_answered(yes)
    return administer(reach, jwt_actions.Retiring(wanted, reason, yes, format_ == "json"))
