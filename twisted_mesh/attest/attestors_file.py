"""``--attestors FILE``: which platforms a CA takes evidence of, and on which terms; a TOML table each.

::

    [k8s]
    cluster = "prod"

    [oidc.github]
    issuer = "https://issuer.example"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from attrs import frozen

from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet
from twisted_mesh.attest import platforms
from twisted_mesh.attest.interface import IAttestor, Means, PlatformClass
from twisted_mesh.state.directory import StateError, read_trusted

T = TypeVar("T", bound=msgspec.Struct)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_SIZE = 1024 * 1024


class BadAttestorsFile(StateError):
    """The file of attestors cannot be used; its text lists what is wrong in which table."""

    code = Code.BAD_ATTESTORS


@frozen
class ConfiguredPlatform:
    """One platform as the file has it."""

    platform: PlatformClass
    settings: Any
    """What its ``read`` has made of its table."""

    def attestor(self, means: Means) -> IAttestor:
        """What takes its evidence."""
        return self.platform.of(self.settings, means)


#: By the kind that evidence has on the wire, in the order of :data:`~twisted_mesh.attest.platforms.PLATFORMS`.
Configured = Mapping[str, ConfiguredPlatform]


def read_attestors(path: Path) -> Configured:
    """Raises :class:`StateError` with everything that is wrong, also with who may change the file."""
    import tomllib  # many a CA has no such file

    data = read_trusted(path, "--attestors", _MAX_SIZE)
    try:
        tables = tomllib.loads(data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's and Unicode's are ValueErrors
        raise BadAttestorsFile(f"--attestors {path}: {discreet(str(error), 300)}") from None
    known = platforms.PLATFORMS
    wrong = [
        f"there is no table [{discreet(name, 40)}] here: there are {', '.join(known)}"
        for name in tables
        if name not in known
    ]
    found = {}
    for name, platform in known.items():
        if name not in tables:
            continue
        where = f"[{name}]"
        try:
            if not isinstance(tables[name], dict | list):
                raise Malformed(f"{where}: it is a table")
            loaded = platform.load()
            found[name] = ConfiguredPlatform(loaded, loaded.read(tables[name], where))
        except PkiError as error:
            wrong.append(str(error))
    if wrong:
        raise BadAttestorsFile(f"--attestors {path}: {'; '.join(wrong)}")
    return found


def settings_of(table: object, shape: type[T], where: str) -> T:
    """``table`` as a ``shape``, which forbids fields that it does not know.

    ``where`` names the table for people: ``[k8s]``. Raises :class:`Malformed`, which tells what there is.
    """
    try:
        return msgspec.convert(table, shape)
    except msgspec.ValidationError as error:
        there = ", ".join(field.encode_name for field in msgspec.structs.fields(shape))
        raise Malformed(f"{where}: {discreet(str(error), 200)} (there are {there})") from None


def absolute(text: str, where: str) -> Path:
    """A file that a table names. Raises :class:`Malformed` for a name that depends on where the CA was started."""
    path = Path(text)
    if not path.is_absolute() or not text.isprintable():
        raise Malformed(
            f"{where}: {discreet(text, 100)!r} is no absolute path: write the whole one"
        )
    return path
