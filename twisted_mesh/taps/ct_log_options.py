"""``--ct-log`` and what goes with it: the logs that a CA shows its certificates to, and whose receipts it demands."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList, origin_of
from pki.errors import Malformed, PkiError, discreet
from pki.svid.spki_pin import SpkiHash
from pki.validity import parse_duration
from twisted_mesh.http.address import split_url
from twisted_mesh.runtime.log import logger
from twisted_mesh.taps.service_options import ServiceOptions

if TYPE_CHECKING:  # most demand none
    from pki.ct.receipt import SctDemand
    from twisted_mesh.trust.sct_options import SctOptions

_LONGEST_TIMEOUT = 30.0
#: Where a log in the same state directory has its entry for lists of logs.
LOG_DIRECTORY, LIST_ENTRY = "ctlog", "log-list.json"


@frozen
class AskedLog:
    """One ``--ct-log URL[#KEY]``."""

    url: str
    key: LogKey | SpkiHash | None
    """None for whatever the list of logs says."""

    @classmethod
    def parse(cls, text: str) -> "AskedLog":
        """Raises :class:`Malformed`."""
        url, mark, key = text.partition("#")
        try:
            if split_url(url, {"https": 443}) is None:
                raise Malformed("it is no https URL")
            if not mark:
                return cls(url, None)
            return cls(url, SpkiHash.parse(key) if key.startswith("sha256/") else LogKey.parse(key))
        except PkiError as error:
            raise Malformed(
                f"--ct-log {discreet(text, 100)} is no log ({error}): write its URL, https://HOST[:PORT]/PATH, and "
                "after # its key where --ct-logs does not have it"
            ) from None

    def found_in(self, logs: LogList) -> Log:
        """The log that it is. Raises :class:`Malformed`."""
        known = logs.log_at(origin_of(self.url))
        if known is None:
            if isinstance(self.key, LogKey):
                return Log(origin_of(self.url), self.key, self.url, self.url)
            here = ", ".join(log.submission_url for log in logs.logs) or "none"
            raise Malformed(
                f"--ct-log {self.url} is a log whose key is not known (known are: {here}): start it first if it is to "
                "be in this state directory (twistd -n mesh-ctlog), name with --ct-logs a FILE that lists it, which it "
                "writes itself (log-list.json), or write its key after #, in base64"
            )
        pin = self.key if isinstance(self.key, SpkiHash) else None
        if isinstance(self.key, LogKey):
            pin = SpkiHash.of_spki(self.key.spki)
        if pin is not None and pin != SpkiHash.of_spki(known.key.spki):
            raise Malformed(
                f"--ct-log {self.url} names another key than --ct-logs has of that log: find out which is right"
            )
        return known


@frozen
class AskedLogs:
    """What the options say of logs."""

    named: tuple[AskedLog, ...]
    """Those that are asked; none for all of the file."""
    file: Path | None
    beside: Path
    """What a log in the same state directory says of itself: where a log is named without its key and no file is."""
    key: str | None = None
    """``--ct-logs-key``: who must have signed the file."""

    def __bool__(self) -> bool:
        return bool(self.named) or self.file is not None

    def read(self, now: datetime) -> Sequence[Log]:
        """The logs, with what the file says of them now. Raises :class:`PkiError`."""
        listed = self._listed()
        at = round(now.timestamp() * 1000)
        if not self.named:
            found = tuple(log for log in listed.logs if not log.objection_to(at))
            if not found:
                raise Malformed(f"--ct-logs {self.file} has no log that takes certificates now")
            return found
        logs = LogList(tuple(one.found_in(listed) for one in self.named)).logs
        for log in logs:
            if objection := log.objection_to(at):
                raise Malformed(f"--ct-log {log.submission_url}: {objection}; ask another log")
        return logs

    def _listed(self) -> LogList:
        path = self.file
        if path is None and self.beside.exists():
            path = self.beside
        if path is None:
            return LogList(())
        from twisted_mesh.ct.log_file import LogFile, logs_key

        file = LogFile(path, logs_key(self.key, path) if self.key else None)
        file.load()
        return file.logs


class CtLogOptions(ServiceOptions):
    """Options of a CA."""

    optParameters: ClassVar = [
        [
            "ct-logs",
            None,
            None,
            "the list of logs with their keys, as mesh-ctlog writes it: those of --ct-log, or all; HUP rereads it",
        ],
        [
            "ct-logs-key",
            None,
            None,
            "who must have signed that list (FILE.sig): a public key or certificate in PEM, or sha256/BASE64 of the "
            "key in FILE.pub",
        ],
        [
            "require-sct",
            None,
            None,
            "believe no caller of the TLS port without receipts (SCTs) of so many logs of --ct-logs, no administrator "
            "either; first let all certificates from before the logs be renewed",
        ],
        [
            "ct-quorum",
            None,
            None,
            "of how many logs a certificate needs an SCT (default: all but one, and of one that one)",
        ],
        [
            "ct-away",
            None,
            "refuse",
            "while too few logs answer: refuse to issue, or issue without (which endpoints with --require-sct refuse)",
        ],
        ["ct-timeout", None, "3s", "how long a log may take over one certificate"],
    ]

    receipts: "SctOptions | None" = None
    """What ``--require-sct`` asks of callers; None where nothing is asked."""

    def __init__(self) -> None:
        super().__init__()
        self["ct-log"] = []

    def opt_ct_log(self, text: str) -> None:
        """URL[#KEY] of a log that certificates are shown to before they are issued; without KEY it is in --ct-logs, or
        beside us in the same state directory (repeatable)"""
        self["ct-log"].append(AskedLog.parse(text))

    def understand_logs(self) -> None:
        """Turn words into values. Raises :class:`Malformed`."""
        path = Path(self._from_here(self["ct-logs"], "--ct-logs")) if self["ct-logs"] else None
        key = self["ct-logs-key"]
        if key and not key.startswith("sha256/"):
            key = str(self._from_here(key, "--ct-logs-key"))
        if key and path is None:
            raise Malformed("--ct-logs-key is who must have signed the list of --ct-logs: name it")
        beside = self["state-dir"] / LOG_DIRECTORY / LIST_ENTRY
        asked = AskedLogs(tuple(self["ct-log"]), path, beside, key)
        self._understand_receipts(path, key)
        quorum = self["ct-quorum"]
        if self["ct-away"] not in ("refuse", "issue"):
            raise Malformed("--ct-away is refuse or issue")
        if quorum is not None:
            if not (quorum.isascii() and quorum.isdigit() and 1 <= int(quorum[:4]) <= 16):
                raise Malformed("--ct-quorum is a number of logs, from 1 to 16")
            if not asked:
                raise Malformed(
                    "--ct-quorum is of how many logs; name them with --ct-log or --ct-logs"
                )
            quorum = int(quorum)
        if self["ct-away"] == "issue" and not asked:
            raise Malformed("--ct-away is about logs; name them with --ct-log or --ct-logs")
        timeout = parse_duration(self["ct-timeout"]).total_seconds()
        if not 1 <= timeout <= _LONGEST_TIMEOUT:
            raise Malformed(
                "--ct-timeout is from 1s to 30s: whoever asks for a certificate waits as long"
            )
        self["ct-quorum"], self["ct-timeout"] = quorum, timeout
        self["logs"] = asked

    def _understand_receipts(self, path: Path | None, key: str | None) -> None:
        """Raises :class:`PkiError`, for a list that cannot be used too."""
        self["sct-demand"] = None
        if self["require-sct"] is not None:
            from twisted_mesh.trust.sct_options import SctOptions

            self.receipts = SctOptions.parse(self["require-sct"], path, key)
            self["sct-demand"] = self.read_demand()

    def hold_to_newest(self, demand: "SctDemand | None") -> None:
        """Refuse a signed list that is older than one before, of an earlier life too. Raises :class:`PkiError`."""
        if self.receipts is not None and demand is not None:
            self.receipts.hold_to_newest(demand, self["state-dir"], logger("ct"))

    def read_demand(self) -> "SctDemand | None":
        """What is demanded of callers, by what the list says now. Raises :class:`PkiError`."""
        if self.receipts is None:
            return None
        return self.receipts.demand(self.receipts.read(), self["sct-demand"])
