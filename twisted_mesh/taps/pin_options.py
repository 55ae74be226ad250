"""``--peer-pin``: by which CA keys peers must be vouched for, by options and by a file that is read again at SIGHUP."""

from pathlib import Path
from typing import ClassVar

from pki.svid.pin_file import read_pins
from pki.svid.spki_pin import PinSet
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.taps.reread import Reread, difference
from twisted_mesh.taps.worker_options import WorkerOptions
from twisted_mesh.trust.store import TrustStore

_SAID = ("peer-pin-mode", "peer-pin-until")


class PinOptions(WorkerOptions):
    """Options of a service that judges peers."""

    files: ClassVar[tuple[str, ...]] = ("peer-pin-file", *WorkerOptions.files)
    optParameters: ClassVar = [
        [
            "peer-pin-mode",
            None,
            None,
            "report: who breaks pins is let in, and the log says so (default); enforce: refused",
        ],
        [
            "peer-pin-until",
            None,
            None,
            "the time from which on pins only report, like 2027-03-01T00:00:00Z: needed with enforce",
        ],
        [
            "peer-pin-file",
            None,
            None,
            "a file of more of --peer-pin, one a line, and of mode and until; read again at SIGHUP",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["peer-pin"] = []

    def opt_peer_pin(self, rule: str) -> None:
        """PATTERN=sha256/BASE64,sha256/BASE64: such peers need one of these CA keys above them (repeatable)"""
        self["peer-pin"].append(rule)

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        file = self["peer-pin-file"]
        self["peer-pin-file"] = self._from_here(file, "--peer-pin-file") if file else None

    def read_pins(self) -> PinSet:
        """The pins, as they are written now. Raises :class:`PkiError`."""
        rules, (mode, until) = self["peer-pin"], (self[name] for name in _SAID)
        file: Path | None = self["peer-pin-file"]
        if file is None:
            return PinSet.parse(rules, mode, until, now=wall_clock())
        return read_pins(
            self.text_of("peer-pin-file"),
            rules,
            mode,
            until,
            now=wall_clock(),
            what=f"--peer-pin-file {file}",
        )

    @property
    def source_of_pins(self) -> str:
        """What has them and is read again, in words; empty where all was said by options."""
        file = self["peer-pin-file"]
        return "" if file is None else f"--peer-pin-file {file}"

    def reread_pins(self, store: TrustStore) -> list[Reread]:
        """How a service reads them again, and holds its peers to them."""

        async def again() -> str:
            before, pins = store.trust.pins, self.read_pins()
            store.pin(pins)
            return difference(before.lines, pins.lines)

        return [Reread(f"pins, {self.source_of_pins}", again)] if self.source_of_pins else []
