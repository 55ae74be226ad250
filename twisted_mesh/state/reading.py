"""Files that an operator names: opened without being held up, and where they cannot be read, why, and what to do.

A directory, a pipe that nobody writes to, a device that never ends, a file of somebody else's, a name with one
wrong component: each is a sentence with the component in it.
"""

import errno
import os
import pwd
import select
import stat
from pathlib import Path

from pki.errors import discreet, printable

#: More is in no certificate, key, bundle or list of ours that is read whole.
LARGEST = 64 * 1024 * 1024
#: How long somebody may take to open the other end of a named pipe, in seconds.
_PATIENCE = 10
_CHUNK = 1024 * 1024


class Unreadable(OSError):
    """Its ``strerror`` says what is wrong and what to do, in place of the kernel's two words alone."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)


def open_readable(path: Path) -> int:
    """A descriptor of a file, or of a pipe that somebody else fills. Raises :class:`Unreadable`.

    Neither the opening nor :func:`read_up_to` is ever held up for long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise Unreadable(error.errno or 0, why_not(path, error)) from None
    except ValueError:
        raise Unreadable(errno.EINVAL, "no file has such a name") from None
    found = os.fstat(descriptor)
    mode = found.st_mode
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or os.path.samestat(found, os.stat(os.devnull)):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise Unreadable(errno.EISDIR, f"{os.strerror(errno.EISDIR)}: name the file in it")
    raise Unreadable(errno.EINVAL, "it is a device or a socket: name a file")


def read_up_to(descriptor: int, most: int, until: bytes | None = None) -> bytes:
    """All that is in it, or, if that is over ``most`` bytes, one byte more than that; up to ``until`` where it is met.

    Raises :class:`Unreadable` for a pipe to which nobody writes, and OSError.
    """
    piped = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    parts: list[bytes] = []
    left = most + 1
    while left > 0:
        part = (_read_pipe if piped else os.read)(descriptor, min(left, _CHUNK))
        if not part:
            break
        parts.append(part)
        left -= len(part)
        if until is not None and until in part:
            break
    return b"".join(parts)


def _read_pipe(descriptor: int, most: int) -> bytes:
    """What a writer writes next, however long that takes: it may be asking a person for a passphrase."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        part = os.read(descriptor, most)
    except BlockingIOError:  # somebody has it open, and will write or close it
        poll.poll()
        return os.read(descriptor, most)
    if part or poll.poll(0):  # what has been written, or the hang-up after the last of it
        return part
    if not poll.poll(_PATIENCE * 1000):
        raise Unreadable(
            errno.EAGAIN, f"it is a pipe, and nobody has opened it to write for {_PATIENCE} s"
        )
    return _read_pipe(descriptor, most)


def read_whole(path: Path, most: int = LARGEST) -> bytes:
    """The bytes of a file or a pipe. Raises :class:`Unreadable`, also where there are over ``most``."""
    descriptor = open_readable(path)
    try:
        data = read_up_to(descriptor, most)
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(error.errno or 0, error.strerror or str(error)) from None
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise Unreadable(errno.EFBIG, f"it has over {most} bytes: it is another file than is meant")
    return data


def named(path: Path, *, secret: bool = False) -> str:
    """A name as it is shown. What names nothing, and has no directory either, may be the content that was meant:
    of a ``secret`` nothing of that is shown.
    """
    text = str(path)
    if len(path.parts) > 1 or text in ("", "-") or _is_there(path):
        return printable(text)
    return f"(a name of {len(text)} characters, not shown)" if secret else discreet(text)


def _is_there(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def why_not(path: Path, error: OSError) -> str:
    """What the kernel said when ``path`` was to be opened, with the component that is to blame and a cure."""
    said = error.strerror or str(error)
    try:
        more = _blamed(path, error.errno or 0)
    except (OSError, ValueError):
        more = ""
    return f"{said}: {more}" if more else said


def _blamed(path: Path, number: int) -> str:
    above = [*reversed(Path(os.path.abspath(path)).parents)]
    match number:
        case errno.ENOENT if path.is_symlink():
            return f"it is a link to {printable(os.readlink(path), 200)}, which is not there: mend the link"
        case errno.ENOENT if not os.path.lexists(path.parent):
            first = next(one for one in above if not os.path.lexists(one))
            return f"there is no directory {printable(str(first), 200)}: correct the name"
        case errno.EEXIST if not path.is_dir():
            return "it is a file, and a directory is meant: name another"
        case errno.ENOTDIR:
            first = next(one for one in above if not one.is_dir())
            return f"{printable(str(first), 200)} is a file and no directory: correct the name"
        case errno.EACCES:
            return _closed(path, above)
        case errno.ENXIO:
            return "it is a socket: name a file"
    return ""


def _closed(path: Path, above: list[Path]) -> str:
    for directory in above:
        if not os.access(directory, os.X_OK, effective_ids=True):
            return (
                f"{_us()} may not enter the directory {printable(str(directory), 200)} "
                f"({_owned(directory)}): have its owner run chmod o+x on it, or name a file elsewhere"
            )
    if not path.exists():
        return (
            f"{_us()} may not make it in {printable(str(path.parent), 200)} ({_owned(path.parent)})"
        )
    return f"{_us()} may not read it ({_owned(path)}): let its owner run chown or chmod, or run this as that user"


def _us() -> str:
    return f"the user {_user(os.geteuid())}"


def _owned(path: Path) -> str:
    found = path.stat()
    return f"mode {stat.S_IMODE(found.st_mode):04o}, of {_user(found.st_uid)}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
