"""``--allow-file``: who may connect, a pattern a line."""

from pathlib import Path

from pki.errors import PkiError, printable
from pki.spiffe import SpiffePattern
from twisted_mesh.state.directory import StateError, read_trusted

_MAX_SIZE = 1024 * 1024


def read_allowed(path: Path, data: bytes | None = None) -> tuple[SpiffePattern, ...]:
    """The patterns, in order; what follows a ``#`` is a remark. ``data`` is what is in the file, where it was read.

    Raises :class:`StateError` with every line that is wrong, for a file without any, and for one that others may
    change.
    """
    if data is None:
        data = read_trusted(path, "--allow-file", _MAX_SIZE)
    text = data.decode("utf-8", "replace")
    found, wrong = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if word := line.partition("#")[0].strip():
            try:
                found.append(SpiffePattern.parse(word))
            except PkiError as error:
                wrong.append(f"line {number}: {error}")
    if wrong:
        raise StateError(f"--allow-file {path}: {printable('; '.join(wrong), 1000)}")
    if not found:
        raise StateError(
            f"--allow-file {path} names nobody: write a SPIFFE ID or a pattern on a line, or leave the option out"
        )
    return tuple(found)
