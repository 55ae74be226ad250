"""What the environment says of where state lives, and in one sentence what in it cannot be meant."""

import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path

from pki.codes import Code
from pki.errors import PkiError, printable

STATE_DIR = "MESH_STATE_DIR"
#: How alike two names are that are taken for one and its misspelling, from 0 to 1.
_ALIKE = 0.8


class BadEnvironment(PkiError):
    """A variable of the environment, or a path as a shell should have expanded it, cannot be used."""

    code = Code.STATE


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$MESH_STATE_DIR``, else the user's own. Raises :class:`BadEnvironment`."""
    if chosen := environ.get(STATE_DIR):
        refuse_tilde(chosen, f"${STATE_DIR}")
        return Path(chosen)
    refuse_misspelt(environ)
    return user_state_dir(environ)


def user_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_STATE_HOME/twisted-mesh``, or what this platform has for it, whatever ``$MESH_STATE_DIR`` says.

    Raises :class:`BadEnvironment` where nobody can say where this user's home is.
    """
    if base := environ.get("XDG_STATE_HOME"):
        refuse_tilde(base, "$XDG_STATE_HOME")
        return Path(base) / "twisted-mesh"
    home = environ.get("HOME")
    if home is None:
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            raise _homeless(f"HOME is not set, and nobody here has the uid {os.getuid()}") from None
    elif not home.startswith("/"):
        raise _homeless(f"HOME is {printable(home, 80)!r}" if home else "HOME is empty")
    import platformdirs

    return platformdirs.user_state_path("twisted-mesh")


def _homeless(why: str) -> BadEnvironment:
    return BadEnvironment(
        f"there is no home to keep state in ({why}): say where with --state-dir or {STATE_DIR}"
    )


def refuse_tilde(path: str, what: str) -> None:
    """Raises :class:`BadEnvironment` for a home that no shell has put in; a directory of that name is ``./~``."""
    if path.startswith("~"):
        rest = path.partition("/")[2]
        raise BadEnvironment(
            f"{what} is {printable(path, 200)!r}, where no shell has put in a home for the ~: write "
            f"$HOME/{printable(rest, 200)}, or the whole path"
        )


def refuse_tildes(words: Iterable[str]) -> None:
    """The same for the words of a command line: bash leaves the ~ of ``--option=~/file`` alone. Raises the same."""
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--") and equals and value.startswith("~/"):
            refuse_tilde(value, name)
        if word.startswith("~/"):
            refuse_tilde(word, "a path")


def refuse_misspelt(environ: Iterable[str]) -> None:
    """Raises :class:`BadEnvironment` for a variable that nothing reads and that can only be meant for ours."""
    ours = _letters(STATE_DIR)
    for name in sorted(environ):
        letters = _letters(name)
        if name == STATE_DIR or "MESH" not in letters:
            continue
        import difflib

        if difflib.SequenceMatcher(None, letters, ours).ratio() >= _ALIKE:
            raise BadEnvironment(
                f"nothing reads the variable {printable(name, 80)}: if it is to be {STATE_DIR}, give it that name, "
                "else unset it"
            )


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).upper()
