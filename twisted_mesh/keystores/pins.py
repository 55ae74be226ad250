"""The PIN of a token: from a file, a file descriptor, or a credential of systemd, and never from a command line."""

from pathlib import Path
from urllib.parse import unquote_to_bytes

from attrs import define, field

from twisted_mesh.keystores.errors import KeyStoreRefused
from twisted_mesh.state.passphrase import secret_from, secret_in

CREDENTIAL = "mesh-ca.token-pin"
_WORD = "PIN"


@define(eq=False, repr=False)
class Pins:
    """Where PINs come from: each URI may name its own source, and what the options name is for all others.

    A file is read anew each time, so that a PIN that was wrong can be put right in it.
    """

    file: Path | None = None
    """``--token-pin-file``."""
    credentials: str | None = None
    """The directory of systemd's credentials (systemd.exec(5))."""
    _read: bytes | None = field(default=None, init=False)
    """What a descriptor has given, which gives it once."""

    def take(self, descriptor: int | None) -> None:
        """Read ``--token-pin-fd``, before twistd forks. Raises :class:`pki.errors.PkiError`."""
        if descriptor is not None:
            self._read = secret_from(descriptor, "--token-pin-fd", _WORD)

    def pin(self, source: str | None = None) -> bytes | None:
        """The PIN; None where nothing names one, for a token that needs none.

        ``source`` is the ``pin-source`` of a URI, decoded: ``file:/PATH``, a path, or ``credential:NAME``.
        Raises :class:`pki.errors.PkiError`, with nothing of the PIN in it.
        """
        if source is not None:
            return self._from_source(source)
        if self.file is not None:
            return secret_in(self.file, "--token-pin-file", word=_WORD)
        if self._read is not None:
            return self._read
        if self.credentials and (path := Path(self.credentials) / CREDENTIAL).exists():
            return secret_in(path, "the credential", private=False, word=_WORD)
        return None

    def _from_source(self, source: str) -> bytes:
        scheme, colon, rest = source.partition(":")
        if colon and scheme == "credential":
            if not self.credentials:
                raise KeyStoreRefused(
                    "pin-source=credential: names a credential of systemd, and this program has none: start it by a "
                    "unit with LoadCredential=, or name a file"
                )
            if not rest or "/" in rest or rest in (".", ".."):
                raise KeyStoreRefused("pin-source=credential: takes the name of a credential")
            path = Path(self.credentials) / rest
            return secret_in(path, "the credential", private=False, word=_WORD)
        path_text = source
        if colon and scheme == "file":
            # RFC 8089: file:/PATH and file:///PATH.
            path_text = rest[2:] if rest.startswith("///") else rest
            path_text = unquote_to_bytes(path_text).decode("utf-8", "surrogateescape")
        if not path_text.startswith("/") or path_text.startswith("//"):
            raise KeyStoreRefused(
                "pin-source is not of a kind that is read: it is file:/PATH or credential:NAME; a PIN does not stand "
                "in it, and a program (|command) is not run"
            )
        return secret_in(Path(path_text), "pin-source", word=_WORD)
