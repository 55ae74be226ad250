"""The attestors of a running CA: those of the house, and those of its file's platforms, which is read again at will."""

from pathlib import Path

from attrs import define, field

from pki.codes import Code
from pki.errors import PkiError, Problem
from twisted_mesh.attest.attestors_file import Configured, read_attestors
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.runtime.log import logger

_log = logger("attest")


@define(eq=False, repr=False)
class ConfiguredPlatforms:
    """What ``--attestors FILE`` says, in force. Raises :class:`~twisted_mesh.state.directory.StateError`."""

    path: Path | None
    means: Means
    attestors: Attestors = field(init=False)
    _configured: Configured = field(factory=dict, init=False)
    _refused: str = field(default="", init=False)
    """Why what is in the file now is not in force."""

    def __attrs_post_init__(self) -> None:
        self.attestors = Attestors.registered(self.means)
        _ = self.read()

    def read(self) -> str:
        """Read the file, and take evidence by it from now on; what has changed by that, or nothing.

        A platform whose table says what it said keeps its attestor, with what that has fetched. Raises
        :class:`~twisted_mesh.state.directory.StateError`: then all is as it was.
        """
        if self.path is None:
            return ""
        before = self._configured
        try:
            now = read_attestors(self.path)
        except PkiError as error:
            self._refused = str(error)
            raise
        self._refused = ""
        kept = {name for name, one in now.items() if before.get(name) == one}
        self.attestors.replace({name: self._attestor(name, now, name in kept) for name in now})
        self._configured = now
        if kept == before.keys() == now.keys():
            return ""
        told = ", ".join(now) or "none"
        _log.info(
            "Evidence of these platforms is taken: {platforms}",
            event="platforms",
            platforms=told,
        )
        return f"evidence is taken of {told}"

    def standing(self) -> tuple[str, Problem | None]:
        """What is in force, in words, and what is wrong with it."""
        taken = self.attestors.platforms
        told = f"evidence is taken of {', '.join(taken) or 'no platform'}"
        wrong = [
            f"evidence of {name} could not be judged, and none has been good since: {why}"
            for name, why in sorted(self.attestors.troubles.items())
        ]
        if self._refused:
            wrong.append(f"what is in the file now was not taken up: {self._refused}")
        if not wrong:
            return told, None
        remedy = (
            "see to whoever is named, and to the CA's log; a file that was mended is read at SIGHUP"
        )
        return told, Problem(Code.UNHEALTHY_PLATFORMS, "; ".join(wrong), remedy)

    def _attestor(self, name: str, configured: Configured, is_kept: bool) -> IAttestor:
        if is_kept:
            return self.attestors.platforms[name]
        return configured[name].attestor(self.means)
