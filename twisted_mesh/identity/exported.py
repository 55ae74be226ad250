"""The identity in a directory, as ``mesh-client --export`` and ``mesh-agent --write`` leave it."""

from pathlib import Path

from pki.errors import Malformed, PkiError, printable
from pki.keys import MemoryKey
from pki.svid.x509svid import OtherKey, X509Svid, load_certificates
from twisted_mesh.state.directory import StateError, read_file
from twisted_mesh.state.key_owner import owner_of


def exported(directory: Path) -> tuple[X509Svid, Path]:
    """The identity that ``mesh-client --export`` published, and the path of its bundle.

    Raises :class:`PkiError`, which names the file.
    """
    # One generation, whole, also if it is switched while we read.
    current = directory / "current"
    home = current.resolve() if current.is_symlink() else directory
    if directory.is_file():
        raise StateError(
            f"--svid {directory} is a file: name the directory that mesh-client --export has written"
        )
    named = f"--svid {printable(str(directory), 400)}"
    chain = load_certificates(read_file(home / "svid.pem", "--svid"), f"{named}/svid.pem")
    data = read_file(home / "svid_key.pem", "--svid")
    try:
        key = MemoryKey.from_pem(data)
    except PkiError as error:
        raise Malformed(f"{named}/svid_key.pem: {error}") from None
    try:
        return X509Svid.assemble(chain, key), home / "svid_bundle.pem"
    except OtherKey as error:
        owner = owner_of(key, directory, *directory.glob(".generation-*"))
        raise Malformed(
            f"{named}: svid.pem and svid_key.pem do not belong together: {error}{owner}: export both anew"
        ) from None
    except PkiError as error:
        raise Malformed(f"{named}/svid.pem: {error}") from None
