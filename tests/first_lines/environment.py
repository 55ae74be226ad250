"""What a shell, a unit or a container hands to our programs, and what cannot be meant by it."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.first_lines.row import FirstLine
from tests.running import BIN, run

_UNSET = {"HOME": None, "MESH_STATE_DIR": None, "XDG_STATE_HOME": None}
#: What a program is asked that would begin its work.
_BEGIN = {
    "mesh-ca": ("--port", "0"),
    "mesh-server": ("--listen", "0"),
    "mesh-client": (),
    "mesh-ctl": ("ca", "show"),
    "pki-inspect": ("show", "/dev/null"),
}


def said_by(program: str, *words: str, **environ: str) -> Callable[[Path], str]:
    """What a program says that is started by a shell, in a directory where nothing is."""

    def say(directory: Path) -> str:
        return _started(directory, [BIN / program, *(words or _BEGIN[program])], environ)

    return say


def _started(directory: Path, command: list[str | Path], environ: Mapping[str, str]) -> str:
    unset = [word for name in _UNSET for word in ("-u", name)]
    given = [f"{name}={value}" for name, value in environ.items()]
    done = run("env", *unset, *given, *command, cwd=directory, env={}, real=True)
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def few_files(program: str) -> Callable[[Path], str]:
    def say(directory: Path) -> str:
        command = ["sh", "-c", 'ulimit -n 7; exec "$@"', "sh", BIN / program, *_BEGIN[program]]
        with TemporaryDirectory() as home:  # pytest's own is too long for a socket in it
            return _started(directory, command, {"HOME": home})

    return say


def foreign(program: str, file: str) -> Callable[[Path], str]:
    """The same with somebody else's module where Python looks first."""

    def say(directory: Path) -> str:
        place = directory / "lib" / file
        place.parent.mkdir(parents=True)
        place.touch()
        environ = {"PYTHONPATH": str(directory / "lib"), "HOME": str(directory)}
        return _started(directory, [BIN / program, *_BEGIN[program]], environ)

    return say


def foreign_here(directory: Path) -> str:
    """The same where Python looks in the current directory, as it does for ``-c`` and ``-m``."""
    (directory / "attr.py").touch()
    code = "import sys; from twisted_mesh.entry import mesh_ca; sys.exit(mesh_ca())"
    return _started(directory, [sys.executable, "-c", code], {"HOME": str(directory)})


def nowhere(program: str, *words: str) -> Callable[[Path], str]:
    """The same in a directory that has been removed."""

    def say(directory: Path) -> str:
        (directory / "gone").mkdir()
        go = 'cd gone && rmdir ../gone && exec "$@"'
        return _started(
            directory, ["sh", "-c", go, "sh", BIN / program, *words], {"HOME": str(directory)}
        )

    return say


def unknown_user(directory: Path) -> str:
    # Neither the right to become somebody else nor a program for it may be there: the answer is changed in its place.
    code = (
        "import pwd, sys\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from twisted_mesh.entry import mesh_ctl\n"
        "sys.argv = ['mesh-ctl', 'ca', 'show']\n"
        "sys.exit(mesh_ctl())"
    )
    return _started(directory, [sys.executable, "-c", code], {})


_NO_HOME = r"say where with --state-dir or MESH_STATE_DIR$"
_TILDE = r"write \$HOME/mesh, or the whole path$"
_FOREIGN = r"take that directory out of PYTHONPATH, or start elsewhere"
_SIDES = {
    "mesh-ca": "ca",
    "mesh-server": "server",
    "mesh-client": "client",
    "mesh-ctl": "ctl",
    "pki-inspect": "inspector",
}


def _row(setup: str, program: str, cause: str, cure: str, say: Callable[[Path], str]) -> FirstLine:
    return FirstLine(setup, _SIDES[program], cause, cure, say, starts_processes=True)


ROWS = (
    _row("HOME is empty", "mesh-ca", r"\(HOME is empty\)", _NO_HOME, said_by("mesh-ca", HOME="")),
    _row(
        "HOME is relative",
        "mesh-client",
        r"\(HOME is 'there'\)",
        _NO_HOME,
        said_by("mesh-client", HOME="there"),
    ),
    _row(
        "no HOME, and nobody knows the user",
        "mesh-ctl",
        r"HOME is not set, and nobody here has the uid \d+",
        _NO_HOME,
        unknown_user,
    ),
    _row(
        "a tilde in MESH_STATE_DIR",
        "mesh-server",
        r"\$MESH_STATE_DIR is '~/mesh', where no shell",
        _TILDE,
        said_by("mesh-server", MESH_STATE_DIR="~/mesh"),
    ),
    *(
        _row(
            "a tilde that bash leaves alone",
            program,
            r"--state-dir is '~/mesh', where no shell has put in a home",
            _TILDE,
            said_by(program, *_BEGIN[program], "--state-dir=~/mesh"),
        )
        for program in ("mesh-ca", "mesh-server", "mesh-client", "mesh-ctl")
    ),
    *(
        _row(
            "MESH_STATEDIR for MESH_STATE_DIR",
            program,
            r"nothing reads the variable MESH_STATEDIR:",
            r"if it is to be MESH_STATE_DIR, give it that name, else unset it$",
            said_by(program, MESH_STATEDIR="/m", HOME="/nowhere"),
        )
        for program in ("mesh-ca", "mesh-server", "mesh-client", "mesh-ctl")
    ),
    *(
        _row(
            "seven open files at most",
            program,
            r"this process may have 7 files open at most, and needs \d\d",
            r"raise the limit \(ulimit -n 1024, or LimitNOFILE= of a unit\)$",
            few_files(program),
        )
        for program in ("mesh-ca", "mesh-server", "mesh-client", "mesh-ctl")
    ),
    *(
        _row(
            f"a foreign {file} on PYTHONPATH",
            program,
            rf"Python takes {name} in /\S+/lib in the place of what belongs to this program",
            _FOREIGN,
            foreign(program, file),
        )
        for file, name, programs in (
            ("twisted/__init__.py", "twisted", ("mesh-ca", "mesh-client", "mesh-ctl")),
            ("pki/__init__.py", "pki", ("mesh-server", "mesh-ctl", "pki-inspect")),
            ("attr.py", "attr", ("mesh-ca", "mesh-client", "pki-inspect")),
        )
        for program in programs
    ),
    _row(
        "a foreign attr.py in the current directory",
        "mesh-ca",
        r"Python takes attr in /",
        _FOREIGN,
        foreign_here,
    ),
    _row(
        "a log file meant from a directory that is gone",
        "mesh-ca",
        r"--logfile x\.log is meant from the directory that we were started in, and that has been removed",
        r"give a whole path, or start elsewhere$",
        nowhere("mesh-ca", "--logfile", "x.log"),
    ),
    _row(
        "a state directory meant from a directory that is gone",
        "mesh-ca",
        r"--state-dir x is meant from the directory that we were started in, and that has been removed",
        r"give a whole path, or start elsewhere$",
        nowhere("mesh-ca", "--state-dir", "x"),
    ),
)
