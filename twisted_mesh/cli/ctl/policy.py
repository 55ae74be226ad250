"""``mesh-ctl policy``: the command lines about rules."""

import click

from twisted_mesh.cli.ctl import policy_ca
from twisted_mesh.cli.ctl.options import format_option

_PATH = click.argument("path", metavar="DIR|FILE")
ACTIONS = ("issue", "renew", "issue-jwt", "connect", "accept")


@click.group()
def command() -> None:
    """Check rules, run their unit tests, explain a decision; show, reload and withdraw what a CA asks.

    \b
    Examples:
      mesh-ctl policy check rules/
      mesh-ctl policy test rules/
      mesh-ctl policy explain rules/ --action issue --set request.spiffe_id=spiffe://mesh.local/prod/web
    """


@command.command()
@_PATH
@format_option
def check(*, path: str, format_: str) -> int:
    """Say everything that is wrong with a policy's rules: file, rule, place, and what to do.

    No CA is asked. Names that there are not, kinds that do not fit together and expressions that could take too long
    are found, whether a request meets them or not. What is right and seldom meant is told besides, as a rule that is
    asked of renewals and looks in selectors.

    Exit status: 0 it can be used, 1 it cannot.

    \b
    Examples:
      mesh-ctl policy check rules/
      mesh-ctl policy check rules/prod.toml --format json
    """
    from twisted_mesh.cli.ctl import policy_actions

    return policy_actions.check(path, as_json=format_ == "json")


@command.command()
@_PATH
@format_option
def test(*, path: str, format_: str) -> int:
    """Run the unit tests beside a policy: DIR's *.test.toml, or NAME.test.toml beside NAME.toml.

    Exit status: 0 all hold, 1 one does not, 2 there is none.

    \b
    Examples:
      mesh-ctl policy test rules/
    """
    from twisted_mesh.cli.ctl import policy_actions

    return policy_actions.test(path, as_json=format_ == "json")


@command.command()
@_PATH
@click.option(
    "--input",
    "file",
    metavar="FILE",
    help="The input as JSON; - for standard input.  [default: empty]",
)
@click.option(
    "--action", type=click.Choice(ACTIONS), help="What is about to happen.  [default: issue]"
)
@click.option(
    "--set",
    "members",
    multiple=True,
    metavar="NAME=VALUE",
    help="A member of the input. Repeatable.",
)
@format_option
def explain(
    *, path: str, file: str | None, action: str | None, members: tuple[str, ...], format_: str
) -> int:
    """Say what each rule makes of an input, which values it read, and which of them decided.

    What is not given is empty, and the time is now. Lists are written with commas.

    Exit status: 0 it is allowed, 1 it is not.

    \b
    Examples:
      mesh-ctl policy explain rules/ --action accept --set peer.id=spiffe://mesh.local/service/shop
      mesh-ctl policy explain rules/ --input request.json --set selectors=unix:uid:0,unix:gid:0
    """
    from twisted_mesh.cli.ctl import policy_actions

    return policy_actions.explain(path, file, action, members, as_json=format_ == "json")


for _of_ca in policy_ca.COMMANDS:
    command.add_command(_of_ca)
