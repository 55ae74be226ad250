"""``--policy DIR|FILE``: a policy's files, read whole."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pki.errors import printable
from pki.rules.rule_set import RuleSet
from pki.rules.rules_file import LARGEST_POLICY, TESTS, read_rules
from twisted_mesh.state.directory import StateError, read_file, read_trusted

#: Files of one directory.
_MOST_FILES = 100
_SUFFIX = ".toml"
_Read = Callable[[Path, str, int], bytes]


def read_policy(path: Path, what: str = "--policy") -> RuleSet:
    """The policy of a file, or of all ``*.toml`` of a directory but those of unit tests.

    None of them may be what others can write. Raises :class:`~pki.rules.errors.BadPolicy` and StateError.
    """
    return read_rules(policy_texts(path, what))


def policy_texts(
    path: Path, what: str = "--policy", read: _Read = read_trusted
) -> Mapping[str, str]:
    """What these files hold, by name. Raises StateError."""
    return _texts(
        path, [name for name in _names(path, what) if not name.name.endswith(TESTS)], what, read
    )


def unit_test_texts(path: Path, what: str = "--policy") -> Mapping[str, str]:
    """What the files of unit tests beside a policy hold, by name. Raises StateError."""
    beside = path if path.is_dir() else path.parent
    found = [name for name in _names(beside, what) if name.name.endswith(TESTS)]
    if not path.is_dir():
        found = [name for name in found if name.name == path.name.removesuffix(_SUFFIX) + TESTS]
    return _texts(beside, found, what, read_file)


def _names(path: Path, what: str) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(
            name
            for name in path.iterdir()
            if name.suffix == _SUFFIX and not name.name.startswith(".")
        )
    except (OSError, ValueError) as error:
        raise StateError(f"{what} {printable(str(path))} cannot be read ({error})") from None
    if len(found) > _MOST_FILES:
        raise StateError(f"{what} {path} has over {_MOST_FILES} files")
    return found


def _texts(path: Path, names: list[Path], what: str, read: _Read) -> Mapping[str, str]:
    texts: dict[str, str] = {}
    for name in names:
        try:
            texts[name.name] = read(name, what, LARGEST_POLICY).decode("utf-8")
        except UnicodeDecodeError:
            raise StateError(f"{what} {name} is no text in UTF-8") from None
    if not texts and path.is_dir() and read is read_trusted:
        raise StateError(
            f"{what} {path} has no file *{_SUFFIX}: write a rule, or leave the option out"
        )
    return texts
