"""Standard output and error, as every program of ours writes there, whether somebody reads or not."""

import errno
import os
import sys
from typing import TextIO

from twisted_mesh.cli.status import REFUSED, UNUSABLE

_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class OutputLost(Exception):
    """The result cannot be written, or nobody reads it any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def lacks_descriptors(error: OSError) -> bool:
    """Whether the process, or the system, has none left."""
    return error.errno in _DESCRIPTORS


def say(program: str, sentence: str) -> None:
    """What is not the result: on stderr, under the program's name."""
    if sys.stderr is not None:  # as it is where the shell closed it: 2>&-
        try:
            print(f"{program}: {sentence}", file=sys.stderr, flush=True)
        except OSError:  # the status tells what nobody can read
            _abandon(sys.stderr)


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
    if lacks_descriptors(error):
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
