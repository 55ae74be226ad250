"""Making a backup, while the CA runs or not."""

import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from attrs import frozen
from cryptography.hazmat.primitives import hashes

from pki.keys.pkcs8 import is_encrypted
from pki.validity import rfc3339
from twisted_mesh.backup import credentials, record
from twisted_mesh.backup.archive import (
    DATABASE,
    FORMAT,
    NAME,
    Manifest,
    Signature,
    Source,
    write,
)
from twisted_mesh.backup.credentials import DoNotFit
from twisted_mesh.backup.provenance import NotProven, judge
from twisted_mesh.state.directory import StateDirectory, StateError, read_file
from twisted_mesh.state.private import refuse_swappable

#: How often keys and certificates are read anew, where a CA is just replacing one of them.
_TRIES = 5


#: What signs a manifest: given it, the signature; None where there is nothing to sign with.
Signer = Callable[[Manifest], Signature | None]


@frozen
class Created:
    """What was saved, and what proves where it comes from."""

    manifest: Manifest
    signature: Signature | None


def create(
    state: StateDirectory, path: Path, now: datetime, sign: Signer = lambda _: None
) -> Created:
    """Save all that a CA needs at ``path``, signed by ``sign``.

    Raises :class:`StateError`, :class:`DoNotFit` and StoreError, and what ``sign`` raises.
    """
    database = state.ca / "mesh.db"
    if not os.path.exists(database):
        raise StateError(
            f"{database} is not there, or not for you to see: name the --state-dir of a CA that keeps a record, and "
            "make backups as its user or as root"
        )
    with _workshop(path) as directory:
        copied = Path(directory) / "mesh.db"
        # First the record: a key that is newer than it does no harm, a record without its key does.
        record.copy(database, copied)
        files = _credentials(lambda: _read(state))
        sources = {name: Source.of_bytes(name, data) for name, data in sorted(files.items())}
        sources[DATABASE] = Source.of_file(DATABASE, copied)
        manifest = _manifest(files, sources, copied, now)
        signature = sign(manifest)
        if signature is not None:  # of whoever answered: it must be our CA's
            try:
                judge(manifest, signature, files, is_root_known=True)
            except NotProven:
                raise StateError(
                    f"what was to be the CA's signature is not of the CA in {state.ca}: try again, its keys may just "
                    "be changing; if it stays so, look who answers on its socket"
                ) from None
        write(path, manifest, sources, int(now.timestamp()), signature)
    return Created(manifest, signature)


def _workshop(path: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        refuse_swappable(path.parent)  # there are keys in it
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be written ({error.strerror})") from None


def _read(state: StateDirectory) -> dict[str, bytes]:
    files = {}
    kinds = ((state.ca, "crt"), (state.ca, "crl"), (state.ca, "json"), (state.private, "key"))
    for directory, ending in kinds:
        for path in sorted(directory.glob(f"*.{ending}")):
            name = str(path.relative_to(state.root))
            if NAME.fullmatch(name):  # what has other names is not the CA's
                files[name] = read_file(path, "the file")
    return files


def _credentials(read: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
    """Files that fit each other: a CA that is just being given a successor writes one after the other."""
    for left in reversed(range(_TRIES)):
        files = read()
        try:
            credentials.check(files)
        except DoNotFit:
            if not left:
                raise
        else:
            if read() == files:
                return files
    raise StateError("the CA's keys change all the time: try again once they do not")


def _manifest(
    files: dict[str, bytes], sources: dict[str, Source], copied: Path, now: datetime
) -> Manifest:
    root = credentials.root_of(files)
    with tempfile.TemporaryDirectory(dir=copied.parent) as directory:
        # Another copy: what is saved stays as the CA wrote it.
        recent = Path(directory) / "recent.db"
        record.copy(copied, recent)
        record.bring_up(recent)
        held = record.summary(recent)
    return Manifest(
        format=FORMAT,
        created_at=rfc3339(now),
        version=version("twisted-mesh"),
        root=root.fingerprint(hashes.SHA256()).hex(),
        store=held.store,
        certificates=held.certificates,
        revoked=held.revoked,
        checkpoint=held.note,
        log_size=held.acts,
        encrypted=sorted(name for name, data in files.items() if is_encrypted(data)),
        members=[source.member for source in sources.values()],
        elsewhere=list(credentials.references_in(files)),
    )
