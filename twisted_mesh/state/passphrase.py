"""The passphrase of the key files, and other secrets of a line: from a file, a descriptor, or a systemd credential."""

import os
import stat
from pathlib import Path

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.state.key_files import refuse_readable
from twisted_mesh.state.reading import named, open_readable, read_up_to

#: What OpenSSL takes.
LONGEST = 1023
CREDENTIAL = "mesh-ca.passphrase"


class UnusablePassphrase(PkiError):
    """No passphrase can be had from where it was said to be."""

    code = Code.UNUSABLE_PASSPHRASE


def read_passphrase(
    file: Path | None = None, descriptor: int | None = None, credentials: str | None = None
) -> bytes | None:
    """The one line of ``file``, else of ``descriptor``, else of our credential in that directory; None without any.

    Read it before twistd forks: that leaves a daemon no standard input. A descriptor is closed
    afterwards. Raises :class:`UnusablePassphrase` and :class:`twisted_mesh.state.directory.StateError`.
    """
    if file is not None:
        return secret_in(file, "--key-passphrase-file")
    if descriptor is not None:
        return secret_from(descriptor, "--key-passphrase-fd")
    # $CREDENTIALS_DIRECTORY of systemd, which itself keeps others away (systemd.exec(5)).
    if credentials and (path := Path(credentials) / CREDENTIAL).exists():
        return secret_in(path, "the credential", private=False)
    return None


def passphrase_file(file: Path | None, credentials: str | None) -> Path | None:
    """The file that :func:`read_passphrase` reads, which can be read again; None where there is none."""
    if file is not None:
        return file
    if credentials and (path := Path(credentials) / CREDENTIAL).exists():
        return path
    return None


def secret_in(path: Path, what: str, *, private: bool = True, word: str = "passphrase") -> bytes:
    """The one line of a file, which ``what`` has named. Raises as :func:`read_passphrase`.

    ``private``: others must not be able to read it; ``word`` is what is in it.
    """
    what = f"{what} {named(path, secret=True)}"
    try:
        opened = open_readable(path)
    except OSError as error:
        raise UnusablePassphrase(f"{what} cannot be read ({error.strerror})") from None
    try:
        if private:
            refuse_readable(path, os.fstat(opened))
        return _line(_read(opened, what), what, word)
    finally:
        os.close(opened)


def secret_from(descriptor: int, what: str, word: str = "passphrase") -> bytes:
    """The same from an open descriptor, which is closed."""
    what = f"{what} {descriptor}"
    line = _line(_read(descriptor, what), what, word)
    if descriptor > 2:
        os.close(descriptor)
    return line


def _read(descriptor: int, what: str) -> bytes:
    """Up to the end, the first newline, or more than a passphrase may be long."""
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise UnusablePassphrase(f"{what} is a directory")
        return read_up_to(descriptor, LONGEST + 2, until=b"\n")
    except OSError as error:
        raise UnusablePassphrase(f"{what} cannot be read ({error.strerror})") from None


def _line(text: bytes, what: str, word: str) -> bytes:
    line = text.removesuffix(b"\n").removesuffix(b"\r")
    if not text or text == b"\xef\xbb\xbf":
        raise UnusablePassphrase(f"{what} is empty: write the {word} on its first line")
    if text.startswith((b"\n", b"\r\n")):
        raise UnusablePassphrase(
            f"the first line of {what} is empty: write the {word} on its first line"
        )
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in text:
        raise UnusablePassphrase(
            f"{what} is in UTF-16, as PowerShell's > writes it, or no text: save it as UTF-8 without a byte order mark"
        )
    if b"\n" in line:
        raise UnusablePassphrase(f"{what} has more than one line: a {word} is one line")
    if len(line) > LONGEST:
        raise UnusablePassphrase(f"{what} is too long: a {word} has at most {LONGEST} bytes")
    return line
