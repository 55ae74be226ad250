"""A CA's whole audit log, fetched into a file, to be verified where no CA is."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, BinaryIO

from pki.audit.log import Verifier
from pki.errors import printable
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.log_transcript import VERSION, Header, Note, line
from twisted_mesh.state.directory import StateError

#: Bytes of checkpoints beyond which they are in a file while the log is fetched.
_IN_MEMORY = 4 * 1024 * 1024


async def fetched(administration: Administration) -> IO[bytes]:
    """The whole log in a file without a name, for whoever closes it. Raises :class:`StateError`."""
    with telling_scratch():
        file = TemporaryFile()  # noqa: SIM115 - closed by whoever asked for it
        try:
            await write(administration, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


@contextmanager
def telling_scratch() -> Iterator[None]:
    """That there is no room for what is only needed meanwhile, as :class:`StateError`."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StateError(
            f"what is fetched cannot be put aside ({printable(why, 200)}): set TMPDIR to a directory with room"
        ) from None


async def write(administration: Administration, file: BinaryIO) -> int:
    """Fetch the whole log by pages; the number of its entries. What comes meanwhile is left out."""
    with SpooledTemporaryFile(_IN_MEMORY) as notes:
        start: int | None = 0
        while start is not None:
            page = await administration.checkpoints(start)
            for note in page.checkpoints:
                notes.write(line(Note(note)))
            start = page.next
        # After all of them: one that is signed meanwhile and larger would say that this one was rolled back.
        head = await administration.head()
        file.write(line(Header(VERSION, head.verifier, head.checkpoint)))
        if head.checkpoint is None:
            return 0
        notes.seek(0)
        shutil.copyfileobj(notes, file)
    size = Verifier.parse(head.verifier).open(head.checkpoint).size
    position: int | None = 0
    while position is not None and position < size:
        entries = await administration.entries(position)
        for entry in entries.entries:
            if entry.position < size:
                file.write(line(entry))
        position = entries.next
    return size
