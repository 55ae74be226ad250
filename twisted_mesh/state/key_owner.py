"""For whom a key was made, where a certificate that lies near it tells."""

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from pki.errors import PkiError, printable
from pki.keys import SigningKey
from pki.svid.x509svid import is_certified, load_certificates, spiffe_id_of, subject_of
from twisted_mesh.state.reading import read_whole

_ENDINGS = {".pem", ".crt", ".cer", ".cert"}
#: Files that are looked into, and the most bytes of each.
_MOST_FILES = 50
_MOST_BYTES = 256 * 1024


def owner_of(key: SigningKey, *directories: Path) -> str:
    """The end of a sentence: whose key it is, by the certificates there; else empty. Never raises."""
    for path, cert in _certificates(directories):
        if is_certified(key, cert):
            whose = spiffe_id_of(cert) or subject_of(cert)
            return f"; the key was made for {whose} ({printable(str(path), 200)})"
    return ""


def _certificates(directories: tuple[Path, ...]) -> Iterator[tuple[Path, x509.Certificate]]:
    for path in _files(directories):
        try:
            found = load_certificates(read_whole(path, _MOST_BYTES))
        except (OSError, PkiError):
            continue
        for cert in found:
            yield path, cert


def _files(directories: tuple[Path, ...]) -> list[Path]:
    found: list[Path] = []
    for directory in directories:
        try:
            found += sorted(
                path for path in directory.iterdir() if path.suffix in _ENDINGS and path.is_file()
            )
        except OSError:
            continue
    return found[:_MOST_FILES]
