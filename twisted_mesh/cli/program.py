"""What our programs share: how a command line is run, and how its failure becomes one sentence and a status."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from twisted_mesh.cli.status import DONE, INTERRUPTED, UNUSABLE
from twisted_mesh.cli.stdout import OutputLost, lacks_descriptors, not_written, say

#: For the outermost command of a program; those below it take it over.
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Unusable(click.ClickException):
    """The options or the input cannot be used: one sentence, and status 2."""

    exit_code = UNUSABLE


def with_version(command: click.Command, *, hidden: bool = False) -> click.Command:
    """``command``, which has ``--version`` now; so have those below it, and their help does not say so."""
    command.params.append(
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=hidden,
            callback=_show_version,
            help="Show the version and exit.",
        )
    )
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_version(below, hidden=True)
    return command


def _show_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"twisted-mesh {version('twisted-mesh')}")
        context.exit()


def refuse_tildes(words: Sequence[str]) -> None:
    """Raises :class:`pki.errors.PkiError`; what it takes is imported where there is a ~ only."""
    if any("~" in word for word in words):
        from twisted_mesh.state import environment

        environment.refuse_tildes(words)


def run_program(
    program: str, command: click.Command, arguments: Sequence[str] | None = None
) -> int:
    """Run a command line, by default the one of this process; its exit status.

    Whatever cannot be used is one sentence on stderr. A bug is a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        refuse_tildes(sys.argv[1:] if arguments is None else arguments)
        return int(command.main(arguments, prog_name=program, standalone_mode=False) or DONE)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UNUSABLE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        from pki.errors import discreet

        say(program, f"{discreet(error.format_message().rstrip('.'), 2000)} (see {path} --help)")
        return UNUSABLE
    except click.ClickException as error:
        say(program, error.message)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except OutputLost as lost:
        return not_written(program, lost.error)
    except OSError as error:
        if not lacks_descriptors(error) and isinstance(error.filename, str | bytes):
            from pki.errors import printable

            name = printable(os.fsdecode(error.filename), 200)
            say(
                program,
                f"{name} cannot be used ({error.strerror}): look at it, and at its directories",
            )
            return UNUSABLE
        return not_written(program, error)
    except Exception as error:
        from pki.errors import PkiError

        if not isinstance(error, PkiError):
            raise
        say(program, str(error))
        return UNUSABLE
