"""The options that say who is asked about the containers of a machine's processes."""

from pathlib import Path
from typing import Any, ClassVar

from pki.errors import Malformed
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.taps.reread import Reread


class WorkloadAttestorOptions:
    """What mesh-agent and mesh-ca have in common; beside :class:`usage.Options`, which is a mapping."""

    optParameters: ClassVar = [
        [
            "workload-attestors",
            None,
            None,
            "who is asked about processes in containers: [docker], [podman], [k8s] of this TOML file; HUP rereads it",
        ],
    ]

    def opt_workload_attestor(self: Any, word: str) -> None:
        """who is asked about processes in containers: docker[:SOCKET], podman[:SOCKET], k8s[:URL] (repeatable)"""
        self.setdefault("workload-attestor", []).append(word)

    def understand_workload_attestors(self: Any, *, serves: bool) -> None:
        """Turn words into values; ``serves``: whether there is anybody to ask about. Raises :class:`PkiError`."""
        words, file = self.get("workload-attestor", []), self["workload-attestors"]
        if words and file:
            raise Malformed(
                "--workload-attestor and --workload-attestors say the same thing: give one of them"
            )
        if (words or file) and not serves:
            raise Malformed("--workload-attestor is for an agent that has a --name")
        self["containers"] = None
        if not words and not file:
            return  # as most have it, who load nothing of containers then
        from twisted_mesh.attest.workload_attestors import WorkloadAttestors

        if file:
            path = Path(self._from_here(file, "--workload-attestors"))
            self["containers"] = WorkloadAttestors.read(path)
        else:
            self["containers"] = WorkloadAttestors.parse(words)

    def local_workloads(self: Any, reactor: IReactor) -> LocalWorkloads | None:
        """What asks them; None where nobody is to be asked. Raises :class:`Malformed`."""
        if (asked := self["containers"]) is None:
            return None
        found: LocalWorkloads | None = asked.local_workloads(
            reactor, requires_pq=bool(self["require-pq"])
        )
        return found

    def reread_workload_attestors(
        self: Any, workloads: LocalWorkloads | None, reactor: IReactor
    ) -> list[Reread]:
        """How a service reads their file again, and asks about whoever connects from then on."""
        asked = self["containers"]
        if asked is None or asked.path is None or workloads is None:
            return []
        path = asked.path

        async def again() -> str:
            before = self["containers"]
            now = before.read(path)
            if now == before:
                return ""
            workloads.replace(now.sources(reactor, requires_pq=bool(self["require-pq"])))
            self["containers"] = now
            asked = ", ".join(source.where for source in workloads.sources) or "nobody"
            return f"asked about containers is {asked}"

        return [Reread(f"--workload-attestors {path}", again)]
