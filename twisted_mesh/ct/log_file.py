"""``--ct-logs FILE``: which logs count, from a file that may have to be signed, and is read again when it changes."""

from pathlib import Path

from attrs import define, field
from twisted.logger import Logger

from pki.ct.log_list import LogList
from pki.errors import PkiError
from pki.keys import PublicKey
from twisted_mesh.trust import list_file

_WHAT = "--ct-logs"


@define(eq=False, repr=False)
class LogFile:
    """A list of logs in a file, which only its owner, we or root, can have written.

    With :attr:`key` it also has to be signed, in ``FILE.sig``: a file that was put in its place is refused then.
    """

    path: Path
    key: PublicKey | None = None
    """Whoever may say which logs count: the offline root's key, or one of its own. None: the file itself says so."""
    logs: LogList = field(factory=lambda: LogList(()), init=False)
    """As last read."""
    _seen: "tuple[object, ...] | None" = field(default=None, init=False)
    """How the files stood when they were read."""
    _trouble: str = field(default="", init=False)

    def load(self) -> bool:
        """Read it; whether it says something else than before. Raises :class:`~pki.errors.PkiError`.

        What was read before goes on to count where it cannot be read, is not signed, or is older than that.
        """
        self._seen = self._standing()
        data = list_file.list_text(self.path, _WHAT)
        signature = b"" if self.key is None else list_file.signature_text(self.path, _WHAT)
        before = self.logs
        found = list_file.list_in(data, signature, self.key, before, f"{_WHAT} {self.path}")
        self.logs = found
        return found != before

    def look(self, log: Logger) -> bool:
        """:meth:`load` it where it stands otherwise than when it was read; what is wrong with it is logged, once."""
        if self._standing() == self._seen:
            return False
        try:
            has_changed = self.load()
        except PkiError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.warn(
                    "The list of logs {path} is as it was, since what is there now cannot be used: {error}",
                    event="reread-failed",
                    path=str(self.path),
                    error=str(error),
                )
            return False
        self._trouble = ""
        if has_changed:
            log.info(
                "The list of logs {path} has changed: it has {logs} logs now",
                event="ct-logs-changed",
                path=str(self.path),
                logs=len(self.logs.logs),
            )
        return has_changed

    def _standing(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self.path, list_file.beside(self.path, "sig")):
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_mode))
            except OSError as error:
                found.append(error.errno)
        return tuple(found)


def logs_key(said: str, list_path: Path) -> PublicKey:
    """The key that ``--ct-logs-key`` names: a PEM file with a public key or a certificate, or ``sha256/…``.

    By its hash alone it is the key in ``LIST.pub``, in the same form, which need not be trusted then. Raises
    :class:`~pki.errors.PkiError`.
    """
    option = "--ct-logs-key"
    return list_file.key_in(list_file.key_text(said, list_path, option), said, list_path, option)
