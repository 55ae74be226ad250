"""What keeps a witness from its work."""

from twisted_mesh.state.directory import StateError


class WitnessStateError(StateError):
    """What the witness remembers cannot be read or written: nothing is cosigned."""
