"""The state directory: where files live, who may read them, and who owns the CA's part."""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from attrs import define, field

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.state.owner_lock import OwnerLock
from twisted_mesh.state.reading import LARGEST, named, read_whole, why_not
from twisted_mesh.state.way import open_to_all

#: What :func:`write_whole` has not finished: the target's name and eight characters by chance.
_TEMPORARY = re.compile(r"\.[\w-]+(\.(key|crt))?\.[a-z0-9_]{8}", re.ASCII)


class StateError(PkiError):
    """The state directory or a file in it cannot be used."""

    code = Code.STATE


class AlreadyRunning(StateError):
    """Another CA owns this state directory."""

    code = Code.ALREADY_RUNNING


@define
class StateDirectory:
    """``<state>``, shared by all, and ``<state>/ca``, which one CA process owns."""

    root: Path
    _lock: OwnerLock = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._lock = OwnerLock(self.ca / "lock", self.root, "mesh-ca", StateError, AlreadyRunning)

    @property
    def ca(self) -> Path:
        """What one CA process owns."""
        return self.root / "ca"

    @property
    def private(self) -> Path:
        """Where its keys are."""
        return self.ca / "private"

    @property
    def root_certificate(self) -> Path:
        """The root, in PEM, for whoever is to believe it."""
        return self.ca / "root.crt"

    @property
    def roots(self) -> Path:
        """Which roots there are and how far their rotation is; there from the first one on."""
        return self.ca / "roots.json"

    @property
    def between(self) -> Path:
        """CAs of somebody else's between our issuing CAs and their root, in PEM; there only if there are such."""
        return self.ca / "between.crt"

    @property
    def first_request(self) -> Path:
        """Is there while a CA that has no root yet waits for its first certificate."""
        return self.ca / "issuing.csr"

    @property
    def installed(self) -> Path:
        """Says what was installed before the first start, until the CA has taken note."""
        return self.ca / "installed.json"

    @property
    def unfinished(self) -> Path:
        """Is there while the first start makes the CA's keys and certificates."""
        return self.ca / "unfinished"

    @property
    def restoring(self) -> Path:
        """Is there while a backup is being put in place."""
        return self.ca / "restoring"

    @property
    def restored(self) -> Path:
        """Says what a restored backup lacked, until the CA has taken note."""
        return self.ca / "restored"

    @property
    def checkpoints(self) -> Path:
        """What was signed last of the audit log, apart from the record."""
        return self.ca / "checkpoints"

    @property
    def required_scts(self) -> Path:
        """Which receipts of logs endpoints have said that they demand."""
        return self.ca / "required-scts.json"

    @property
    def socket(self) -> Path:
        """Where it listens for callers of this machine."""
        return self.ca / "ca.sock"

    def prepare(self) -> None:
        """Make the directories, 0711 for those on the way to the socket, 0700 for keys.

        Raises :class:`StateError`.
        """
        if (above := open_to_all(self.root)) is not None:
            raise StateError(
                f"everybody can rename what is in {above}, and put another directory in the place of {self.root}: "
                f"chmod o-w {above}, or choose another with --state-dir"
            )
        for path, mode in ((self.root, 0o711), (self.ca, 0o711), (self.private, 0o700)):
            try:
                path.mkdir(mode=mode, parents=path == self.root, exist_ok=True)
                found = path.stat() if path == self.root else path.lstat()
                _refuse_foreign(path, found, may_be_roots=path == self.root)
                # A sticky directory (a mounted tmpfs, /tmp) is shared on purpose: used, and left as it is.
                if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
                    path.chmod(mode)
            except OSError as error:
                why = why_not(path, error)
                raise StateError(
                    f"the state directory {path} cannot be used ({why}): choose another with --state-dir"
                ) from None
        if not os.access(self.ca, os.W_OK | os.X_OK):
            raise StateError(
                f"{self.ca} is not writable: choose another directory with --state-dir"
            )

    def refuse_half_restored(self) -> None:
        """Raises :class:`StateError` where a restore was interrupted, so that old and new files are mixed.

        What one has unpacked that was never decided on is removed: keys are in it. For whoever has the lock.
        """
        if (self.restoring / "plan.json").exists():
            raise StateError(
                f"a backup is half in place in {self.ca}: run the same mesh-ctl backup restore again, which ends it"
            )
        shutil.rmtree(self.restoring, ignore_errors=True)

    def lock(self) -> None:
        """Own the CA's part until this process ends, however it ends. Not before twistd's fork.

        Raises :class:`StateError`, which is :class:`AlreadyRunning` where another process owns it.
        """
        self._lock.take()

    def sweep(self) -> None:
        """Remove what a kill left of files that were being written; a key may be in it. Only under the lock.

        Raises :class:`StateError`.
        """
        for directory in (self.ca, self.private):
            for path in directory.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    try:
                        path.unlink()
                    except OSError as error:
                        raise StateError(f"{path} cannot be removed ({error.strerror})") from None

    def unlock(self) -> None:
        """Let another process have it. May be said again."""
        self._lock.release()


def _refuse_foreign(
    path: Path,
    found: os.stat_result,
    *,
    may_be_roots: bool,
    remedy: str = "choose another with --state-dir",
) -> None:
    """Whoever owns a directory, or may rename in it, can put other keys and another socket there."""
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{path} is no directory of its own: {remedy}")
    ours = found.st_uid == os.geteuid()
    if not ours and not (may_be_roots and found.st_uid == 0):
        raise StateError(f"{path} belongs to another user: {remedy}")
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not ours and writable and not found.st_mode & stat.S_ISVTX:
        raise StateError(f"{path} can be changed by others: {remedy}")


def refuse_changeable(*paths: Path) -> None:
    """Raises :class:`StateError` for a file that another user may change; one that is not there is passed over."""
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue  # whoever opens it says what is wrong
        if stat.S_ISREG(found.st_mode):  # and not /dev/null, or a pipe
            _refuse_others(path, found)


def _refuse_others(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise StateError(
            f"{path} belongs to another user, who may have changed it: chown it to the user of the CA, or name "
            "another file"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"{path} can be changed by others: chmod go-w {path}, and think about who may have changed it"
        )


def read_trusted(path: Path, what: str, most: int) -> bytes:
    """A file that says who may do what: one that only its owner, we or root, can have written.

    At most ``most`` bytes. What was looked at is what is read. Raises :class:`StateError`.
    """
    try:
        directory = path.resolve().parent
        _refuse_foreign(
            directory, directory.stat(), may_be_roots=True, remedy=f"keep {path.name} elsewhere"
        )
        # Nothing is waited for that is no file: a pipe, say.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise StateError(f"{what} {path} is no file")
            _refuse_others(path, found)
            data = file.read(most + 1)
    except OSError as error:
        raise StateError(f"{what} {path} cannot be read ({why_not(path, error)})") from None
    if len(data) > most:
        raise StateError(f"{what} {path} has over {most} bytes")
    return data


def read_file(path: Path, what: str, most: int = LARGEST) -> bytes:
    """A file, or a pipe, that somebody has named. Raises :class:`StateError`, which names it and what to do."""
    try:
        return read_whole(path, most)
    except OSError as error:
        raise StateError(f"{what} {named(path)} cannot be read ({error.strerror})") from None


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Replace ``path`` so that a reader, or a crash, sees the old bytes or the new, never a part.

    Raises :class:`StateError`.
    """
    with writing_whole(path, mode) as file:
        file.write(data)


@contextmanager
def writing_whole(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once the block has ended well; else nothing has changed.

    Raises :class:`StateError`.
    """
    try:
        # Whatever becomes of the names on the way to it meanwhile, this is the directory that is written to.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _writing_in(directory, path.name, mode) as file:
                yield file
        finally:
            os.close(directory)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written ({error.strerror}): free space or mend its directory's permissions"
        ) from None


def write_in(directory: int, name: str, data: bytes, mode: int) -> None:
    """The same as :func:`write_whole` in a directory that is open. Raises OSError."""
    with _writing_in(directory, name, mode) as file:
        file.write(data)


@contextmanager
def _writing_in(directory: int, name: str, mode: int) -> Iterator[BinaryIO]:
    temporary: str | None = f".{name}.{secrets.token_hex(4)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(str(temporary), flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(str(temporary), name, src_dir_fd=directory, dst_dir_fd=directory)
        temporary = None
        os.fsync(directory)
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)


def sync_directory(path: Path) -> None:
    """Make a rename in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
