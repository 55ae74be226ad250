"""``mesh-proxy --workers``: the parent of processes that are proxies."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress

from pki.errors import Malformed
from twisted_mesh.proxy.circle import circle_problem
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.taps.listener_rules import is_for_others, refuse_moved, usual_interface
from twisted_mesh.taps.parent import ParentService, SharedOut
from twisted_mesh.taps.proxy_options import Options
from twisted_mesh.taps.reread import difference
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.workers.figures import merged_listeners


class ProxyParent(ParentService):
    """Has the listeners' addresses, and workers that carry."""

    options: Options
    _bound_to: Sequence[IAddress] = ()

    def addresses(self) -> Sequence[tuple[str, str]]:
        """See :class:`ParentService`."""
        return [(one.address, usual_interface(one)) for one in self.options["listeners"]]

    def bound(self, ports: Sequence[SharedOut]) -> None:
        """See :class:`ParentService`."""
        self._bound_to = [port.getHost() for port in ports]
        for listener, address in zip(self.options["listeners"], self._bound_to, strict=True):
            if not listener.serves:
                is_for_others(listener, address)
        if problem := circle_problem(self._bound_to, self.options["listeners"]):
            raise StartError(problem)

    def read_rules(self) -> str:
        """See :class:`ParentService`."""
        before: Sequence[Listener] = self.options["listeners"]
        listeners = self.options.read_listeners()
        _ = self.options.read_pins(), self.options.read_policy()
        refuse_moved(before, listeners)
        if problem := circle_problem(self._bound_to, listeners):
            raise Malformed(problem)
        self.options["listeners"] = listeners
        changed = [
            new.name for old, new in zip(before, listeners, strict=True) if str(old) != str(new)
        ]
        return difference((), changed).replace("new:", "changed:")

    async def more_status(self) -> dict[str, Any]:
        """See :class:`ParentService`."""
        return {"listeners": merged_listeners(await self.pages("/status"))}
