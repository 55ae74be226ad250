"""The options of ``mesh-agent``."""

from pathlib import Path
from typing import ClassVar

from attrs import evolve

from pki.errors import Malformed
from pki.policy.selector import is_label
from pki.spiffe import SpiffeId, TrustDomain
from pki.validity import parse_duration
from twisted_mesh.files.command import Command
from twisted_mesh.files.pid_signal import PidFileSignal
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.agent import Wanted
from twisted_mesh.identity.bootstrap import join_token
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.environment import refuse_tilde
from twisted_mesh.taps.identity_options import IdentityOptions
from twisted_mesh.taps.workload_attestor_options import WorkloadAttestorOptions
from twisted_mesh.taps.workload_socket import parse_socket

#: Where a CA listens that was told nothing else.
_OWN_CA = "https://localhost:8443"
_OVER_TLS = (
    "--name needs a CA at https:// (--ca-url, and --ca-fingerprint or --ca-file), which knows the agent by its "
    "certificate, also on the CA's own machine: mesh-ctl agent token create prints both"
)


class Options(WorkloadAttestorOptions, IdentityOptions):
    """Options of ``twistd mesh-agent``."""

    program = "mesh-agent"
    synopsis = (
        "[options]\n\nExample: twistd -n mesh-agent --name web-1 --ca-url https://ca.example:8443"
        " --ca-fingerprint sha256:… --join-token-file token\n"
        "         twistd -n mesh-agent --write /etc/nginx/mesh --spiffe-id spiffe://mesh.local/service/web"
        " --on-update-signal HUP:/run/nginx.pid"
    )
    longdesc = (
        "With --name: serves the processes of this machine the identities that registration entries buy them, by the "
        "SPIFFE Workload API and Envoy's SDS. With --write: keeps an identity as files for programs that are not of "
        "the mesh: certificate, key, roots and CRLs are replaced all at once, and then a command is run or a process "
        "signalled. It does both where both are given."
    )
    optParameters: ClassVar = [
        [
            "name",
            None,
            None,
            "serve workloads, as the agent of that name (mesh-ctl agent token create NAME)",
        ],
        [
            "socket",
            None,
            None,
            "where workloads ask (default: agent/workload.sock in the state directory)",
        ],
        [
            "spiffe-id",
            None,
            None,
            "who the files are for; must be given with --write, but for --source",
        ],
        ["write", None, None, "the directory of the files"],
        [
            "write-join-token-file",
            None,
            None,
            "with --name and --write: a file with a token for the files' identity",
        ],
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
        if not self["write"] and self["name"] is None:
            raise Malformed(
                "--name or --write is needed: the agent's name, to serve workloads; or the directory that files are "
                "kept in"
            )
        self.understand_workload_attestors(serves=self["name"] is not None)
        self._serve_workloads()
        self._write_files()

    def _serve_workloads(self) -> None:
        if self["name"] is None:
            for option in ("socket", "write-join-token-file"):
                if self[option] is not None:
                    raise Malformed(f"--{option} is for an agent that has a --name")
            return
        if self["source"] is not None:
            raise Malformed(
                "--source is for the files of --write: an agent that serves workloads has its identity from a CA"
            )
        if self["ca-url"] is None:
            self._ask_own_ca()
        if CaAddress.parse(self["ca-url"]).scheme != "https":
            raise Malformed(_OVER_TLS)
        default = self["state-dir"] / "agent" / "workload.sock"
        path = self._from_here(self["socket"], "--socket") if self["socket"] else default
        self["socket"] = parse_socket(Path(path), "--socket")

    def _ask_own_ca(self) -> None:
        """The CA of this state directory, at its usual port: over its socket it could not see our certificate."""
        self["ca-url"] = _OWN_CA
        if self["ca-fingerprint"] is None and self["ca-file"] is None:
            root = StateDirectory(self["state-dir"]).root_certificate
            if not root.exists():
                raise Malformed(f"{_OVER_TLS}; and no CA has its state in {self['state-dir']}")
            self["ca-file"] = str(root)

    def _write_files(self) -> None:
        if not self["write"]:
            for option in ("on-update", "on-update-signal", "write-join-token-file"):
                if self[option] is not None:
                    raise Malformed(f"--{option} is for the files of --write, which is not given")
            return
        refuse_tilde(self["write"], "--write")
        self["write"] = Path(self._from_here(self["write"], "--write"))
        timeout = parse_duration(self["on-update-timeout"]).total_seconds()
        command, word = self["on-update"], self["on-update-signal"]
        self["command"] = Command.parse(command, timeout) if command is not None else None
        self["signal"] = PidFileSignal.parse(word) if word is not None else None

    def _spiffe_id(self, trust_domain: TrustDomain) -> SpiffeId:
        """Of the files where there are any, else of the agent."""
        if self["name"] is None:
            return super()._spiffe_id(trust_domain)
        if not is_label(self["name"]):
            raise Malformed(
                "--name is 1 to 64 lower-case letters, digits, dots, dashes and underscores, a letter or digit first"
            )
        self["agent-id"] = agent_id = trust_domain.member("mesh", "agent", self["name"])
        if self["write"]:
            return super()._spiffe_id(trust_domain)
        if self["spiffe-id"]:
            raise Malformed(
                f"--spiffe-id is for the files of --write, which is not given: an agent is {agent_id} by its --name"
            )
        return agent_id

    def wanted_of_agent(self) -> Wanted:
        """The identity of an agent that serves workloads; ask before :meth:`wanted`, whose token is then another."""
        wanted = self.wanted()
        self["join-token"] = join_token(None, self["write-join-token-file"])
        if self["join-token"] is not None:  # which is the proof then, and not what buys the agent
            self["attest"] = None
        return evolve(wanted, spiffe_id=self["agent-id"], dns_names=(), ip_addresses=())
