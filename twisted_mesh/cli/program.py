"""What our programs share: how a command line is run, and how its failure becomes one sentence and a status."""

import errno
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TextIO

import click

from twisted_mesh.cli.status import DONE, INTERRUPTED, REFUSED, UNUSABLE

#: For the outermost command of a program; those below it take it over.
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class OutputLost(Exception):
    """The result cannot be written, or nobody reads it any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


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


def say(program: str, sentence: str) -> None:
    """What is not the result: on stderr, under the program's name."""
    if sys.stderr is not None:  # as it is where the shell closed it: 2>&-
        try:
            click.echo(f"{program}: {sentence}", file=sys.stderr)
        except OSError:  # the status tells what nobody can read
            _abandon(sys.stderr)


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
        if error.errno not in _DESCRIPTORS and isinstance(error.filename, str | bytes):
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


def put(text: str) -> None:
    """Text of the result on stdout, now, where there is one. Raises :class:`OutputLost`."""
    if sys.stdout is not None:  # as it is where the shell closed it: >&-
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            raise OutputLost(error) from None


def not_written(program: str, error: OSError) -> int:
    """Say that the result is lost, unless whoever read it has had enough; the exit status."""
    abandon_stdout()
    if isinstance(error, BrokenPipeError):  # whoever read has had enough, as head has
        return REFUSED
    if error.errno in _DESCRIPTORS:
        say(program, "no file descriptor is left: raise the limit (ulimit -n)")
    else:
        say(program, f"the output cannot be written ({error.strerror}): free some space")
    return UNUSABLE


def abandon_stdout() -> None:
    """So that what is still buffered does not fail again when Python closes the stream."""
    if sys.stdout is not None:
        _abandon(sys.stdout)


def _abandon(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
