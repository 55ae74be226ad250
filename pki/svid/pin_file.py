"""The file of ``--peer-pin-file``: pins, what they do, and until when; a running service reads it again."""

from collections.abc import Sequence
from datetime import datetime

from pki.errors import PkiError, discreet, printable
from pki.svid.spki_pin import BadPin, PinSet

_SETTINGS = ("mode", "until")


def read_pins(
    data: bytes,
    rules: Sequence[str],
    mode: str | None,
    until: str | None,
    *,
    now: datetime,
    what: str,
) -> PinSet:
    """The pins of the file and of the command line together; what follows a ``#`` in the file is a remark.

    A line is a rule, or ``mode report``, ``mode enforce`` or ``until TIME``; these may be said in one place only.
    Raises :class:`BadPin`, which names ``what``.
    """
    written: list[str] = []
    said = {"mode": mode, "until": until}
    wrong: list[str] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] not in _SETTINGS:
            if len(words) == 1:
                written.append(words[0])
            else:
                wrong.append(
                    f"line {number}: {discreet(' '.join(words), 100)!r} is no PATTERN=sha256/BASE64,sha256/BASE64 in "
                    "one word, no mode and no until"
                )
        elif len(words) != 2:
            wrong.append(f"line {number}: {words[0]} takes one word")
        elif said[words[0]] is not None:
            wrong.append(
                f"line {number}: {words[0]} is said twice, here or by --peer-pin-{words[0]}"
            )
        else:
            said[words[0]] = words[1]
    if wrong:
        raise BadPin(f"{what}: {printable('; '.join(wrong), 1000)}")
    if not written:
        raise BadPin(f"{what} has no pin: write a rule on a line, or leave the option out")
    try:
        return PinSet.parse((*rules, *written), said["mode"], said["until"], now=now)
    except PkiError as error:
        raise BadPin(f"{what}: {error}") from None
