"""The command line of ``mesh-ctl``. A group is imported when it is asked for, and Twisted after that."""

import sys
from importlib import import_module

import click

from twisted_mesh.cli.ctl.options import Unusable
from twisted_mesh.cli.ctl.output import say

#: Where each command is, and what it is for: so that --help imports none of them.
_COMMANDS = {
    "audit": "Verify, show and export the CA's log of all its acts.",
    "backup": "Save all that a CA needs, and bring it back.",
    "ca": "Show the CA's certificates; take the root's key away.",
    "cert": "List, show, revoke and export certificates.",
    "doctor": "Say what is not well with the CA, and what to do.",
    "entry": "Create, list, show and delete registration entries.",
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
        module = import_module(f"twisted_mesh.cli.ctl.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def mesh_ctl() -> None:
    """Administer a CA of the mesh, by default the one of this machine's state directory.

    Exit status: 0 yes, or done; 1 no: refused, or something is wrong; 2 the options or the input
    cannot be used; 3 the CA did not answer in time.
    """


def main(arguments: list[str] | None = None) -> int:
    """The program: returns its exit status."""
    try:
        return int(mesh_ctl.main(arguments, prog_name="mesh-ctl", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "mesh-ctl"
        return _failed(f"{error.format_message().rstrip('.')} (see {path} --help)", 2)
    except Unusable as error:
        return _failed(error.message, 2)
    except click.Abort:
        return 130
    except BrokenPipeError:
        return _abandoned()
    except OSError as error:
        return _failed(f"the output cannot be written ({error.strerror}): free some space", 2)
    except Exception as error:
        from pki.errors import PkiError

        if not isinstance(error, PkiError):
            raise
        return _failed(str(error), 2)


def _failed(sentence: str, status: int) -> int:
    say(sentence)
    return status


def _abandoned() -> int:
    """The reader has gone: what is still buffered must not fail again when Python closes the stream."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
