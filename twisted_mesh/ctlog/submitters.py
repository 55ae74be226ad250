"""Who may submit: CAs, each known by a key of its own and by nothing else."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from attrs import define, field, frozen

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem
from pki.spiffe import SpiffeId
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.ctlog.errors import ForeignSubmitter
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import read_trusted

_log = logger("ctlog")
#: Where a CA in the same state directory says by which key it submits.
PIN_FILE = "ct-submitter.pin"
_LARGEST = 4096


@frozen
class AcceptedCa:
    """One of them. ``AcceptedCa.parse(str(x)) == x``."""

    spiffe_id: SpiffeId
    pin: SpkiHash | None = None
    """None where the CA says it in a file beside us."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``spiffe://TD/mesh/ca`` or ``spiffe://TD/mesh/ca=sha256/PIN``. Raises :class:`PkiError`."""
        name, equals, pin = text.partition("=")
        return cls(SpiffeId.parse(name), SpkiHash.parse(pin) if equals else None)

    def __str__(self) -> str:
        return f"{self.spiffe_id}={self.pin}" if self.pin is not None else str(self.spiffe_id)


@define(eq=False, repr=False)
class Submitters(Collection[SpkiHash]):
    """The keys of all of them; looked up anew where a CA's file has changed."""

    accepted: Sequence[AcceptedCa]
    pin_file: Path
    problem: Problem | None = field(default=None, init=False)
    """Why one of them cannot submit."""
    _pins: Mapping[SpkiHash, SpiffeId] = field(factory=dict, init=False)
    _seen: object = field(default=None, init=False)
    """What the file was like when it was read."""

    def __attrs_post_init__(self) -> None:
        ids = [one.spiffe_id for one in self.accepted if one.pin is None]
        if len(ids) > 1:
            raise Malformed(
                f"--accept-ca {ids[1]} needs the pin of its key: only one CA has this state directory, and writes its "
                "pin there"
            )
        pins = [one.pin for one in self.accepted if one.pin is not None]
        if twice := next((pin for pin in pins if pins.count(pin) > 1), None):
            raise Malformed(f"--accept-ca: two CAs have the key {twice}: each has its own")

    def look(self) -> None:
        """Read the file again, if it has changed."""
        waits = [one.spiffe_id for one in self.accepted if one.pin is None]
        state: object = ()
        if waits:
            with suppress(OSError):
                found = self.pin_file.stat()
                state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state == self._seen:
            return
        self._seen = state
        pins = {one.pin: one.spiffe_id for one in self.accepted if one.pin is not None}
        self.problem = None
        for spiffe_id in waits:
            try:
                pins[self._told()] = spiffe_id
            except PkiError as error:
                why = str(error) if state else f"there is no {self.pin_file}"
                self.problem = Problem(
                    Code.NOT_AUTHORIZED,
                    f"nothing is taken from {spiffe_id} yet: its key is not known ({why})",
                    "start the CA on this state directory with --ct-log, and it is taken up without a restart; for a "
                    f"CA elsewhere write --accept-ca {spiffe_id}=sha256/… with the pin that it prints",
                )
        if not self.accepted:
            self.problem = Problem(
                Code.NOT_AUTHORIZED,
                "nothing is taken from anybody: no CA is accepted",
                "write --accept-ca spiffe://TRUST-DOMAIN/mesh/ca=sha256/… with the pin that the CA prints when it "
                "starts with --ct-log",
            )
        self._pins = pins
        self._tell()

    def _told(self) -> SpkiHash:
        data = read_trusted(self.pin_file, "the CA's pin", _LARGEST)
        return SpkiHash.parse(data.decode("ascii", "replace").strip())

    def _tell(self) -> None:
        for pin, spiffe_id in self._pins.items():
            _log.info(
                "Certificates are taken from {spiffe_id}, which shows the key {pin}",
                event="ctlog-accepts",
                spiffe_id=str(spiffe_id),
                pin=str(pin),
            )
        if self.problem is not None:
            is_waiting = bool(self.accepted) and not self._seen
            tell = (
                _log.info if is_waiting else _log.warn
            )  # a CA that comes after its log is nothing wrong
            tell(
                "{problem}: {remedy}",
                event="ctlog-accepts-nobody",
                problem=self.problem.detail,
                remedy=self.problem.remedy,
            )

    def who(self, pin: SpkiHash | None) -> SpiffeId:
        """Whose key it is. Raises :class:`ForeignSubmitter`."""
        self.look()
        found = None if pin is None else self._pins.get(pin)
        if found is None:
            shown = "no key was shown" if pin is None else f"the key {pin} is none of them"
            raise ForeignSubmitter(
                f"only the CAs that this log accepts may submit, each by its own key, and {shown}: write --accept-ca "
                "ID=PIN where the log is started"
            )
        return found

    def __contains__(self, pin: object) -> bool:
        self.look()
        return pin in self._pins

    def __iter__(self) -> Iterator[SpkiHash]:
        return iter(self._pins)

    def __len__(self) -> int:
        return len(self._pins)
