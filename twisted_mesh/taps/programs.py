"""``mesh-ca``, ``mesh-server`` and ``mesh-agent`` as programs of their own: ``mesh-ca …`` is ``twistd -n mesh-ca …``.

pipx and uv show the programs of a package, and not those of what it needs: there is no twistd then. What twistd
itself understands (``--logfile``, ``--pidfile``, ``--uid``, …) is understood here too, before or after our options.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import ServiceMaker
from twisted.python.reflect import namedAny
from twisted.python.usage import Options, UsageError
from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

from pki.errors import printable
from twisted_mesh.cli.stdout import OutputLost, not_written, put
from twisted_mesh.taps.signals import before_the_start

#: What of twistd loads an application of the caller's, or is answered by the service.
_NOT_HERE = {"file", "python", "source", "encrypted", "no_save", "help", "version"}
_FAILED = 1


class ProcessOptions(ServerOptions):
    """twistd's options for a process, and one service.

    It is named and not looked for: looking for plugins wants to write a list of them beside Twisted, where
    neither an administrator's installation nor a container lets it.
    """

    longdesc = ""

    def __init__(self, service: ServiceMaker) -> None:
        super().__init__()
        self._service = service
        self.typed = service.tapname
        """What the user typed to get here."""
        short = {name for name, long in self.synonyms.items() if long in _NOT_HERE}
        self.longOpt = [name for name in self.longOpt if name.rstrip("=") not in _NOT_HERE]
        self.shortOpt = "".join(
            letter for letter in _letters(self.shortOpt) if letter[0] not in short
        )

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        """The service, as Twisted wants a command told: name, short name, what makes its options, description."""
        self.loadedPlugins = {self.typed: self._service}
        yield self.typed, None, self._service.options, self._service.description


@frozen
class _Name:
    """A name of an option, long or of one letter."""

    option: str
    """Its long name."""
    takes_value: bool
    is_of_process: bool


@define(eq=False)
class CommandLine:
    """Words, sorted into those for the process and those for the service.

    An option is told by its name, in the spellings of getopt: ``--name value``, ``--name=value``, ``-n``, ``-nb``,
    ``-lFILE``, ``-l FILE``, or the beginning of a name that begins no other. What both know is the service's; what
    neither knows goes to it as well, and it says so.
    """

    process: list[str] = field(factory=list)
    service: list[str] = field(factory=list)
    wants_help: bool = False

    @classmethod
    def read(cls, words: Sequence[str], process: Options, service: Options) -> "CommandLine":
        """Raises :class:`UsageError` for a name that is not one, or lacks its value."""
        names = {
            name: known
            for options, is_of_process in ((process, True), (service, False))
            for name, known in _names(options, is_of_process)
        }
        line = cls()
        rest = iter(words)
        for word in rest:
            if word in ("-", "--") or not word.startswith("-"):
                line.service += [word, *rest]
            elif word.startswith("--"):
                line._take_long(word, rest, names)
            else:
                line._take_short(word, rest, names)
        return line

    def _take_long(self, word: str, rest: Iterator[str], names: dict[str, _Name]) -> None:
        typed, equals, value = word[2:].partition("=")
        name = _meant(typed, names)
        if name is None:
            self.service.append(word)
        elif equals:
            self._take(name, f"={value}")
        else:
            self._take(name, "=" + _value(name, rest) if name.takes_value else "")

    def _take_short(self, word: str, rest: Iterator[str], names: dict[str, _Name]) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            name = names.get(letter)
            if name is None:
                self.service.append(f"-{letter}")
            elif name.takes_value:
                self._take(name, "=" + (letters or _value(name, rest)))
                return
            else:
                self._take(name, "")

    def _take(self, name: _Name, value: str) -> None:
        words = self.process if name.is_of_process else self.service
        words.append(f"--{name.option}{value}")
        self.wants_help |= name.option == "help"


def _names(options: Options, is_of_process: bool) -> Iterator[tuple[str, _Name]]:
    long = {name.rstrip("="): name.endswith("=") for name in options.longOpt}
    for name, takes_value in long.items():
        yield name, _Name(name, takes_value, is_of_process)
    for letter in _letters(options.shortOpt):
        option = options.synonyms[letter[0]].replace("_", "-")
        yield letter[0], _Name(option, letter.endswith(":"), is_of_process)


def _letters(short: str) -> list[str]:
    """getopt's ``nl:`` as ``n``, ``l:``."""
    return [
        letter + ":" * (short[at + 1 : at + 2] == ":")
        for at, letter in enumerate(short)
        if letter != ":"
    ]


def _meant(typed: str, names: dict[str, _Name]) -> _Name | None:
    long = {name.option: name for name in names.values()}
    if typed in long or not typed:
        return long.get(typed)
    found = sorted(option for option in long if option.startswith(typed))
    if len(found) > 1:
        several = ", ".join(f"--{option}" for option in found)
        raise UsageError(f"--{typed} may be any of {several}")
    return long[found[0]] if found else None


def _value(name: _Name, rest: Iterator[str]) -> str:
    for value in rest:
        return value
    raise UsageError(f"option --{name.option} requires argument")


def _help(process: ProcessOptions, service: Options) -> str:
    synopsis = service.getSynopsis().replace("twistd -n ", "")
    of_process = process.getUsage().partition("Commands:")[0].partition("\n")[2]
    return (
        f"Usage: {process.typed} {synopsis}\n{service.getUsage()}\nOptions of the process, which twistd has too:\n"
        f"{of_process}"
    )


def _run(plugin: str, words: Sequence[str] | None) -> int:
    if words is None:
        before_the_start()
    maker: ServiceMaker = namedAny(f"twisted.plugins.mesh_plugins.{plugin}")
    process = ProcessOptions(maker)
    try:
        service = maker.options()
        line = CommandLine.read(sys.argv[1:] if words is None else words, process, service)
        if line.wants_help:
            put(_help(process, service))
            return 0
        process.parseOptions(["--nodaemon", *line.process, maker.tapname, *line.service])
        runApp(process)
    except UsageError as error:
        return _failed(process, f"{printable(str(error))}; see {process.typed} --help")
    except KeyError as error:  # of --uid and --gid
        return _failed(process, printable(str(error.args[0])))
    except OutputLost as lost:  # of --help
        return not_written(process.typed, lost.error)
    except OSError as error:  # of --rundir, --chroot, --pidfile, --uid
        where = f" ({printable(str(error.filename))})" if error.filename else ""
        return _failed(process, f"{error.strerror}{where}")
    return 0


def _failed(process: ProcessOptions, sentence: str) -> int:
    if sys.__stderr__ is not None:  # twistd's log may have taken the other over
        sys.__stderr__.write(f"{process.typed}: {sentence}\n")
    return _FAILED


def mesh_ca(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-ca``: runs a CA until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where the CA cannot start.
    """
    return _run("meshCA", words)


def mesh_agent(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-agent``: keeps files until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where it cannot start.
    """
    return _run("meshAgent", words)


def mesh_ctlog(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-ctlog``: keeps a log until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where it cannot start.
    """
    return _run("meshCtLog", words)


def mesh_proxy(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-proxy``: carries connections until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where it cannot start.
    """
    return _run("meshProxy", words)


def mesh_server(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-server``: runs a server until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where the server cannot start.
    """
    return _run("meshServer", words)


def mesh_signer(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-signer``: signs until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where the signer cannot start.
    """
    return _run("meshSigner", words)


def mesh_witness(words: Sequence[str] | None = None) -> int:
    """The program ``mesh-witness``: cosigns until it is told to stop; its exit status.

    Raises :class:`SystemExit` with a sentence where the witness cannot start.
    """
    return _run("meshWitness", words)
