"""``--require-sct``: how many receipts of logs a certificate must have, and the file that says whose receipts count.

No CA is asked whose: whoever has stolen one would bring a log of his own.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from attrs import frozen
from twisted.logger import Logger

from pki.ct.errors import BadLogList
from pki.ct.log_list import LogState
from pki.ct.receipt import SctDemand
from pki.ct.sct import MOST_SCTS
from pki.errors import Malformed, discreet
from twisted_mesh.trust import list_file
from twisted_mesh.trust.seen_list import SeenList

#: Logs of these can give no receipt that counts.
_USELESS = (LogState.PENDING, LogState.REJECTED)


class _Texts(msgspec.Struct, frozen=True):
    """What the files hold."""

    logs: bytes
    signature: bytes | None = None
    key: bytes | None = None


def _option(name: str) -> str:
    return f"--{name}"


@frozen
class SctOptions:
    """What is said: a number, a file, and who may have written that, beyond whom the file system lets."""

    required: int
    logs: Path
    key: str | None = None
    """A file with a public key or a certificate, or the hash of the key in ``LOGS.pub``: ``LOGS.sig`` is needed."""
    spoken: Callable[[str], str] = _option
    """How the options are written, for sentences."""

    @classmethod
    def parse(
        cls,
        required: str | int | None,
        logs: str | Path | None,
        key: str | Path | None,
        spoken: Callable[[str], str] = _option,
    ) -> "SctOptions | None":
        """None where nothing is said. Raises :class:`Malformed`."""
        number, file, signer = map(spoken, ("require-sct", "ct-logs", "ct-logs-key"))
        if required is None:
            if logs is not None or key is not None:
                raise Malformed(
                    f"{file if logs is not None else signer} says whose receipts (SCTs) count, and nobody is asked for "
                    f"any: say with {number} how many a certificate must have"
                )
            return None
        text = str(required)
        count = int(text) if text.isascii() and text.isdigit() and len(text) <= 2 else 0
        if not 0 < count <= MOST_SCTS:
            raise Malformed(
                f"{number} {discreet(text, 20)}: it takes a number from 1 to {MOST_SCTS}"
            )
        if logs is None:
            raise Malformed(
                f"{number} needs {file}, the file that says which logs' receipts (SCTs) count: no CA is asked that"
            )
        return cls(count, Path(logs), None if key is None else str(key), spoken)

    def read(self) -> bytes:
        """What the files hold now, as one text, for :meth:`demand` here or in another process.

        Raises :class:`pki.errors.PkiError`.
        """
        option = self.spoken("ct-logs")
        logs = list_file.list_text(self.logs, option)
        if self.key is None:
            return msgspec.json.encode(_Texts(logs))
        signature = list_file.signature_text(self.logs, option)
        key = list_file.key_text(self.key, self.logs, self.spoken("ct-logs-key"))
        return msgspec.json.encode(_Texts(logs, signature, key))

    def demand(self, text: bytes, before: SctDemand | None = None) -> SctDemand:
        """What is demanded by what :meth:`read` has read; ``before`` is what was demanded until now.

        Raises :class:`pki.errors.PkiError` where the list is damaged, is not signed, is older than what was read
        before, or has fewer logs than receipts are demanded.
        """
        texts = msgspec.json.decode(text, type=_Texts)
        what = f"{self.spoken('ct-logs')} {self.logs}"
        key = None
        if self.key is not None:
            option = self.spoken("ct-logs-key")
            key = list_file.key_in(texts.key or b"", self.key, self.logs, option)
        known = None if before is None else before.logs
        found = list_file.list_in(texts.logs, texts.signature or b"", key, known, what)
        useful = sum(log.state not in _USELESS for log in found.logs)
        if useful < self.required:
            raise BadLogList(
                f"{what} has {useful} logs whose receipts (SCTs) count, and {self.spoken('require-sct')} wants "
                f"those of {self.required}: nobody could connect"
            )
        return SctDemand(self.required, found)

    def now(self) -> SctDemand:
        """:meth:`demand` by what the files hold now. Raises :class:`pki.errors.PkiError`."""
        return self.demand(self.read())

    def hold_to_newest(self, demand: SctDemand, state_dir: Path, log: Logger) -> None:
        """Of a signed list, refuse one that is older than another that was ever read there, and remember this one.

        Raises :class:`pki.errors.PkiError`. Whoever may write the file says himself which list counts, unless somebody
        else has to have signed it: then he could put an earlier one back.
        """
        if self.key is not None:
            seen = SeenList.of(state_dir, self.logs, self.spoken("ct-logs"))
            seen.refuse_older(demand.logs)
            seen.remember(demand.logs, log)
