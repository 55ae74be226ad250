"""Who answers for a connection: the registration entry that bought its certificate, whatever ID that names."""

from collections import OrderedDict

from attrs import define, field

from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import StoreError
from twisted_mesh.trust.connections import Peer

_log = logger("ca")
#: So many certificates are remembered; of the others the store is asked.
_REMEMBERED = 8192


@define(eq=False, repr=False)
class Holders:
    """An entry with a ``*`` buys as many IDs as its holder likes: for shares they are one."""

    store: IStore
    _known: "OrderedDict[int, str | None]" = field(factory=OrderedDict, init=False)

    async def of(self, peer: Peer) -> str | None:
        """``entry:ID``, or None where no entry bought the certificate, or none is on record."""
        serial = peer.path[0].serial_number
        if serial in self._known:
            self._known.move_to_end(serial)
            return self._known[serial]
        try:
            found = await self.store.find_all([serial])
        except StoreError as error:
            _log.debug("Nobody knows who holds a connection: {error}", error=str(error))
            return None
        entry = found[0].entry if found else None
        self._known[serial] = holder = None if entry is None else f"entry:{entry}"
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return holder
