"""What key stores are opened on: the reactor, the PINs, and where they may keep something of their own."""

from pathlib import Path

from attrs import field, frozen

from twisted_mesh.interfaces import IReactor
from twisted_mesh.keystores.pins import Pins


@frozen(eq=False, repr=False)
class StoreGround:
    """What every kind of store is given."""

    reactor: IReactor
    pins: Pins = field(repr=False)
    directory: Path
    """For its owner alone: where a store keeps what it shows to prove itself. It may not be there yet."""
    requires_pq: bool = False
    """Whether over TLS keys are exchanged by hybrid groups alone."""
