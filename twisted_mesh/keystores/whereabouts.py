"""Where a key is, for people: its store, its object, and what the store says of how it is kept."""

from attrs import frozen

from pki.errors import Problem


@frozen
class Whereabouts:
    """What a store says of a key of its own. Words are empty, and flags None, where it does not say."""

    kind: str
    """``file``, ``pkcs11`` or ``signer``."""
    uri: str
    store: str = ""
    """Which: the token's label, the signer's address."""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    """Of the token."""
    label: str = ""
    id: str = ""
    """Of the object, in hex."""
    is_extractable: bool | None = None
    was_ever_extractable: bool | None = None
    is_sensitive: bool | None = None
    is_local: bool | None = None
    """Whether it was made there and not brought."""
    own_pin: str = ""
    """The key that this CA proves itself by there: ``mesh-signer --client-pin``."""
    problem: Problem | None = None
    """Why the store could not say; None where it has."""
