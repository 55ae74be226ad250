"""``--issuance-log``: one JSON line a certificate, for whoever follows the file."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from attrs import define, field

from pki.serial import serial_hex
from pki.validity import rfc3339
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.memory import Memory
from twisted_mesh.stores.records import IssuedCertificate


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


@define(eq=False, repr=False)
class IssuanceLog:
    """The file, opened for each line: it may be moved away meanwhile."""

    path: Path
    memory: Memory = field(init=False)
    """Whether it can be written."""

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "issuance-log",
            self.path,
            "Certificates are signed and not given out, since their line cannot be written",
            event="issuance-log-not-written",
            again=self._try_again,
            is_needed=True,
        )

    def open(self) -> None:
        """See at the start that it can be written. Raises :class:`StateError`."""
        self._append(b"")

    def record(self, certificate: IssuedCertificate) -> None:
        """Add a line of JSON for a certificate, whole or not at all. Raises :class:`StateError`."""
        line = {
            "time": rfc3339(certificate.issued_at),
            "serial": serial_hex(certificate.serial),
            "spiffe_id": str(certificate.spiffe_id),
            "subject": certificate.subject,
            "expires_at": rfc3339(certificate.expires_at),
            "requester": certificate.requester,
        }
        self._append(msgspec.json.encode(line) + b"\n")

    def _try_again(self) -> None:
        with suppress(StateError):
            self._append(b"")

    def _append(self, line: bytes) -> None:
        with self.memory.watched():
            self._write(line)

    def _write(self, line: bytes) -> None:
        try:
            with open(self.path, "ab", buffering=0, opener=_private) as file:
                written = file.write(line)
                if written != len(line):  # half a line would spoil the next one too
                    file.truncate(file.tell() - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StateError(
                f"the issuance log {self.path} cannot be written ({error.strerror})"
            ) from None
