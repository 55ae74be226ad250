"""``--ct-logs FILE``: which logs count, from a file that may have to be signed, and is read again when it changes."""

from pathlib import Path

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from twisted.logger import Logger

from pki.ct.document import LARGEST
from pki.ct.errors import BadLogList
from pki.ct.log_list import LogList, verify_signature
from pki.errors import HOSTILE_INPUT, PkiError
from pki.keys import PublicKey, is_certifiable, spki_der
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.state.directory import read_trusted

_LONGEST_SIGNATURE = 16 * 1024
_LONGEST_KEY = 64 * 1024
_WHAT = "--ct-logs"
_PEM = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


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
        data = read_trusted(self.path, _WHAT, LARGEST)
        if self.key is not None:
            verify_signature(data, self._signature(), self.key)
        found, before = LogList.parse(data), self.logs
        if found.timestamp and before.timestamp and found.timestamp < before.timestamp:
            raise BadLogList(
                f"{_WHAT} {self.path} is older than what was read there before: an earlier list was put back"
            )
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

    @property
    def _signature_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sig")

    def _signature(self) -> bytes:
        return read_trusted(self._signature_path, "the signature of --ct-logs", _LONGEST_SIGNATURE)

    def _standing(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self.path, self._signature_path):
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
    pin = SpkiHash.parse(said) if said.startswith("sha256/") else None
    path = Path(said) if pin is None else list_path.with_name(f"{list_path.name}.pub")
    key = _key_in(read_trusted(path, "--ct-logs-key", _LONGEST_KEY), path)
    if pin is not None and SpkiHash.of_spki(spki_der(key)) != pin:
        raise BadLogList(f"the key in {path} is not the one that --ct-logs-key names")
    return key


def _key_in(data: bytes, path: Path) -> PublicKey:
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            data = x509.load_pem_x509_certificate(data).public_key().public_bytes(*_PEM)
        key = load_pem_public_key(data)
        if is_certifiable(key):
            return key
    except HOSTILE_INPUT:
        pass
    raise BadLogList(
        f"--ct-logs-key {path} has no public key and no certificate in PEM that can be used"
    )
