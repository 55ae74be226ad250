"""The options of ``mesh-agent``."""

from pathlib import Path
from typing import ClassVar

from pki.errors import Malformed
from pki.validity import parse_duration
from twisted_mesh.files.command import Command
from twisted_mesh.files.pid_signal import PidFileSignal
from twisted_mesh.state.environment import refuse_tilde
from twisted_mesh.taps.identity_options import IdentityOptions


class Options(IdentityOptions):
    """Options of ``twistd mesh-agent``."""

    program = "mesh-agent"
    synopsis = (
        "[options]\n\nExample: twistd -n mesh-agent --write /etc/nginx/mesh --spiffe-id spiffe://mesh.local/service/web"
        " --on-update-signal HUP:/run/nginx.pid"
    )
    longdesc = (
        "Keeps an identity as files for programs that are not of the mesh: certificate, key, roots and CRLs are "
        "replaced all at once, and then a command is run or a process signalled."
    )
    optParameters: ClassVar = [
        ["spiffe-id", None, None, "who the files are for; must be given"],
        ["write", None, None, "the directory of the files; must be given"],
        ["on-update", None, None, "run this command once files are new; no shell looks at it"],
        ["on-update-timeout", None, "30s", "how long it may take, before it is ended"],
        [
            "on-update-signal",
            None,
            None,
            "SIGNAL:PIDFILE, like HUP:/run/nginx.pid: signal that process once files are new",
        ],
    ]

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        if not self["write"]:
            raise Malformed("--write is needed: the directory that the files are kept in")
        refuse_tilde(self["write"], "--write")
        self["write"] = Path(self._from_here(self["write"], "--write"))
        timeout = parse_duration(self["on-update-timeout"]).total_seconds()
        command, word = self["on-update"], self["on-update-signal"]
        self["command"] = Command.parse(command, timeout) if command is not None else None
        self["signal"] = PidFileSignal.parse(word) if word is not None else None
