"""The attestors of a running CA: those of the house, and those of its file's platforms, which is read again at will."""

from pathlib import Path

from attrs import define, field

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
        before, now = self._configured, read_attestors(self.path)
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

    def _attestor(self, name: str, configured: Configured, is_kept: bool) -> IAttestor:
        if is_kept:
            return self.attestors.platforms[name]
        return configured[name].attestor(self.means)
