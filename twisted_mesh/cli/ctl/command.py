"""The command line of ``mesh-ctl``. A group is imported when it is asked for, and Twisted after that."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module

import click

from twisted_mesh.cli.program import CONTEXT, run_program, with_version

#: Where each command is, and what it is for: so that --help imports none of them.
_COMMANDS = {
    "agent": "Let agents join, list and show them, and end them.",
    "audit": "Verify, show and export the CA's log of all its acts.",
    "backup": "Save all that a CA needs, and bring it back.",
    "ca": "Show the CA's certificates; take the root's key away.",
    "cert": "List, show, revoke and export certificates.",
    "ct": "Watch logs of certificates, search them, and prove what is in them.",
    "doctor": "Say what is not well with the CA, and what to do.",
    "entry": "Create, list, show and delete registration entries.",
    "federation": "Federate with other trust domains: add, list, show, refresh, remove.",
    "jwt": "List, rotate and retire the keys that sign JWT-SVIDs.",
    "key": "Block keys, let them go, and list those that are blocked.",
    "policy": "Check, test and explain rules; show, reload and withdraw those of the CA.",
    "token": "Create, list and revoke join tokens.",
    "why": "Say why a caller gets a certificate or not, and what would change that.",
}

_EPILOG = """\b
Examples:
  mesh-ctl doctor
  mesh-ctl token create --spiffe-id spiffe://mesh.local/service/web
  mesh-ctl why --spiffe-id spiffe://mesh.local/service/web
  mesh-ctl cert list --status valid
  mesh-ctl cert revoke --serial 47E8F7F3E498BE8D7F7958543F34D4CD --reason keyCompromise
  mesh-ctl audit verify
  mesh-ctl backup create ca.tar
"""


class _Commands(click.Group):
    """The commands, imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return _imported(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@cache
def _imported(name: str) -> click.Command:
    return with_version(import_module(f"twisted_mesh.cli.ctl.{name}").command, hidden=True)


@with_version
@click.command(cls=_Commands, epilog=_EPILOG, context_settings=CONTEXT)
def mesh_ctl() -> None:
    """Administer a CA of the mesh, by default the one of this machine's state directory.

    Exit status: 0 yes, or done; 1 no: refused, or something is wrong; 2 the options or the input
    cannot be used; 3 the CA did not answer in time.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """The program ``mesh-ctl``; returns its exit status."""
    return run_program("mesh-ctl", mesh_ctl, arguments)
