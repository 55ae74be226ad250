"""What a key signs only to show that it does: words that can be no certificate, CRL, answer or note."""

import re

#: What is signed begins so. A certificate, a CRL and an OCSP answer begin with 0x30, and a note with its origin.
PREFIX = b"twisted-mesh: does this key sign? "
#: A time, or a number that somebody has drawn.
_ASKED = re.compile(r"[0-9A-Za-z:.+\-]{1,100}", re.ASCII)


def probe(asked: str) -> bytes:
    """The words that a key signs for whoever has ``asked``. Raises ``ValueError`` for what may mean something."""
    if not _ASKED.fullmatch(asked):
        raise ValueError("a probe is a time or a number")
    return PREFIX + asked.encode("ascii")


def is_probe(data: bytes) -> bool:
    """Whether ``data`` is what :func:`probe` makes, and nothing else."""
    return data.startswith(PREFIX) and bool(
        _ASKED.fullmatch(data.removeprefix(PREFIX).decode("ascii", "replace"))
    )
