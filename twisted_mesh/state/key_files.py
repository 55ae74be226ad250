"""Key files: whole or old, for their owner alone, encrypted when there is a passphrase."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from attrs import define, field, frozen

from pki.errors import PkiError
from pki.keys import KeptKey, KeyReference, MemoryKey, is_reference
from pki.keys.pkcs8 import Undecryptable, is_encrypted, read_pem
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError, sync_directory, write_whole
from twisted_mesh.state.reading import open_readable, read_up_to, read_whole

_log = logger("ca")
_LARGEST = 64 * 1024
_OPTIONS = "--key-passphrase-file or --key-passphrase-fd"


class WritesPem(Protocol):
    """A key that can be kept in a file."""

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """The key as PKCS #8, encrypted where there is a passphrase."""


K = TypeVar("K", bound=WritesPem)


def _nowhere(reference: KeyReference) -> KeptKey:
    raise StateError(
        f"the key is not in its file but in {reference.uri}, and nothing here says how to get there: --key-store "
        f"{reference.scheme}:… (docs/KEYS.md)"
    )


@define(eq=False, repr=False)
class KeyFiles:
    """The keys in one directory. The passphrase is kept here and nowhere else: the next key needs it."""

    directory: Path
    passphrase: bytes | None = field(default=None, repr=False)
    referred: Callable[[KeyReference], KeptKey] = _nowhere
    """Finds the key of a file that only says where it is. Raises :class:`pki.errors.PkiError`."""
    _plain: dict[str, WritesPem] = field(factory=dict, init=False, repr=False)
    """What was loaded from a file that is to be encrypted and is not yet."""

    def path(self, name: str) -> Path:
        """Where the key of that name is, or would be."""
        return self.directory / name

    def exists(self, name: str) -> bool:
        """Whether there is a key of that name."""
        return self.path(name).exists()

    def read(self, name: str) -> bytes:
        """The file as it is. Raises :class:`StateError`, also if others may look at it."""
        path = self.path(name)
        try:
            descriptor = open_readable(path)
            try:
                refuse_readable(path, os.fstat(descriptor))
                data = read_up_to(descriptor, _LARGEST)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StateError(f"the key {path} cannot be read ({error.strerror})") from None
        if len(data) > _LARGEST:
            raise StateError(f"the key {path} has over {_LARGEST} bytes: it is no key")
        return data

    def load(self, name: str, from_pem: Callable[[bytes, bytes | None], K]) -> K:
        """The key in a file, by the constructor of its kind. Raises :class:`StateError`.

        A file that is not encrypted and should be is noted for :meth:`seal`.
        """
        pem, path = self.read(name), self.path(name)
        encrypted = is_encrypted(pem)
        if encrypted and self.passphrase is None:
            raise StateError(f"{path} is encrypted: give its passphrase with {_OPTIONS}")
        try:
            key = from_pem(pem, self.passphrase if encrypted else None)
        except PkiError as error:
            if isinstance(error, Undecryptable):
                raise StateError(
                    f"{path} cannot be decrypted: {_OPTIONS} gave a wrong passphrase{_oddity(self.passphrase)}, or the "
                    "file is damaged"
                ) from None
            raise StateError(f"{path}: {error}") from None
        if not encrypted and self.passphrase is not None and not is_reference(pem):
            self._plain[name] = key
        return key

    def kept(self, name: str, *, is_known: bool = False) -> KeptKey:
        """A key of the CA's: what its file holds, or what that refers to. Raises :class:`StateError`.

        ``is_known``: as :meth:`pki.keys.MemoryKey.from_known_pem` has it.
        """

        def from_pem(pem: bytes, passphrase: bytes | None) -> KeptKey:
            if is_reference(pem):
                return self.referred(KeyReference.parse(pem))
            read = MemoryKey.from_known_pem if is_known else MemoryKey.from_pem
            return read(pem, passphrase)

        return self.load(name, from_pem)

    def is_elsewhere(self, name: str) -> bool:
        """Whether the file only says where its key is. Raises :class:`StateError`."""
        return is_reference(self.read(name))

    def seal(self) -> None:
        """Encrypt the files that :meth:`load` found plain; once all is known to fit. Raises :class:`StateError`."""
        while self._plain:
            name, key = next(iter(self._plain.items()))
            self.write(name, key)
            _log.info(
                "The key {path} was not encrypted, and is now. Copies of the plain one may be left in backups and on "
                "the disk",
                event="key-encrypted",
                path=str(self.path(name)),
            )

    def replace_passphrase(self, passphrase: bytes | None) -> bool:
        """Have the next keys encrypted with this one; whether it is another than before.

        It must open every encrypted key that is there, or the next start would not. Raises :class:`StateError`; then
        the one before stays in force.
        """
        if passphrase is None or passphrase == self.passphrase:
            return False
        for path in sorted(self.directory.glob("*.key")):
            pem = self.read(path.name)
            if is_encrypted(pem):
                try:
                    read_pem(pem, passphrase)
                except PkiError:
                    raise StateError(
                        f"it does not open {path}: encrypt the keys with it first (openssl pkcs8 -topk8 -scrypt), or "
                        "put the one before back"
                    ) from None
        self.passphrase = passphrase
        return True

    def write(self, name: str, key: WritesPem) -> None:
        """Keep ``key``, in place of what was there. Raises :class:`StateError`."""
        write_whole(self.path(name), key.to_pem(self.passphrase), 0o600)
        self._plain.pop(name, None)

    def remove(self, name: str) -> None:
        """Delete a key, if it is there. Raises :class:`StateError`."""
        self._plain.pop(name, None)
        remove_file(self.path(name))

    def check(self) -> None:
        """Refuse keys that others may look at, those that are not in use among them. Raises :class:`StateError`."""
        for path in sorted(self.directory.glob("*.key")):
            try:
                refuse_readable(path, path.stat())
            except OSError as error:
                raise StateError(f"the key {path} cannot be read ({error.strerror})") from None


def _oddity(passphrase: bytes | None) -> str:
    """What is uncommon about a passphrase that opens nothing, without a piece of it."""
    if passphrase is None:
        return ""
    if passphrase.startswith(b"\xef\xbb\xbf"):
        return " (it begins with a byte order mark, as some editors write: save its file without)"
    if passphrase != passphrase.strip():
        return " (there are blanks at its beginning or end, which count)"
    return ""


def refuse_readable(path: Path, found: os.stat_result) -> None:
    """Raises :class:`StateError` for a secret that others may look at, or that is another user's."""
    if found.st_uid not in (os.geteuid(), 0):
        raise StateError(
            f"{path} belongs to another user, who may have read or written it: restore it from a backup, "
            f"chown it to the user of the CA, and chmod 600 {path}"
        )
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise StateError(
            f"{path} can be read by others: chmod 600 {path}, and think about who may have read it"
        )


def remove_file(path: Path) -> None:
    """Delete a file, if it is there, so that it stays deleted. Raises :class:`StateError`."""
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be removed ({error.strerror})") from None


@frozen
class Copy:
    """A copy of a key file that has been read back."""

    path: Path
    sha256: str
    """Of the file's bytes, in hex: the proof that the copy is held."""


def copy_out(source: Path, destination: Path, *, state: Path) -> Copy:
    """Copy a key file as it is, encrypted or not, to a place outside of ``state``; a directory gets the same name.

    Written with mode 0600, flushed to the disk, and read back. What is there is never overwritten.
    Raises :class:`StateError`; then nothing of the copy is left.
    """
    target = destination / source.name if destination.is_dir() else destination
    if target.resolve().is_relative_to(state.resolve()):
        raise StateError(
            f"{target} is in the state directory: a key that is taken away goes elsewhere, best to another medium"
        )
    try:
        data = read_whole(source, _LARGEST)
    except OSError as error:
        raise StateError(f"the key {source} cannot be read ({error.strerror})") from None
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise StateError(f"{target} exists already: choose another destination") from None
    except OSError as error:
        raise StateError(f"{target} cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        sync_directory(target.parent)
        if target.read_bytes() != data:
            raise OSError(0, "what was read back is not what was written")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise StateError(f"{target} cannot be written ({error.strerror})") from None
    return Copy(target, hashlib.sha256(data).hexdigest())
