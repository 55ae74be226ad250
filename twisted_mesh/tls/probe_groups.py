"""Which groups a server takes: each of them offered alone, one connection after the other."""

from collections.abc import Mapping
from enum import StrEnum

from attrs import frozen

from twisted_mesh.tls.conversation import Failed, Target
from twisted_mesh.tls.hybrid import HYBRID, is_hybrid
from twisted_mesh.tls.probe import Wishes, shake_hands

#: What is offered, the hybrid ones first.
OFFERED = (*HYBRID, "x25519", "secp256r1", "secp384r1", "secp521r1", "x448")


class Taking(StrEnum):
    """Whether a server takes a group."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It hung up without a word, or this OpenSSL has no such group."""


class KeyExchange(StrEnum):
    """What becomes of who records a server's connections until there is a quantum computer."""

    HYBRID_ONLY = "hybrid only"
    """He reads none of them."""
    HYBRID = "hybrid"
    """None of those whose clients have a hybrid group too."""
    CLASSICAL_ONLY = "classical only"
    """All of them."""
    UNKNOWN = "unknown"


@frozen
class Groups:
    """What a server takes."""

    takes: Mapping[str, Taking]

    @property
    def verdict(self) -> KeyExchange:
        """Never better than what was seen: who may be hiding a classical group is not hybrid only."""
        taken = [name for name, taking in self.takes.items() if taking is Taking.TAKEN]
        if not taken:
            return KeyExchange.UNKNOWN
        if not any(map(is_hybrid, taken)):
            sure = all(self.takes[name] is Taking.REFUSED for name in HYBRID)
            return KeyExchange.CLASSICAL_ONLY if sure else KeyExchange.UNKNOWN
        others = [taking for name, taking in self.takes.items() if not is_hybrid(name)]
        refuses = all(taking is Taking.REFUSED for taking in others)
        return KeyExchange.HYBRID_ONLY if refuses else KeyExchange.HYBRID


def probe_groups(target: Target, wishes: Wishes) -> Groups:
    """Offer each of :data:`OFFERED` to the server at ``target``. Raises nothing: what cannot be seen is unknown."""
    return Groups({name: _taking(target, wishes, name) for name in OFFERED})


def _taking(target: Target, wishes: Wishes, name: str) -> Taking:
    try:
        group = shake_hands(target, wishes, name)
    except Failed:
        return Taking.UNKNOWN
    if group is None:
        return Taking.UNKNOWN
    return Taking.TAKEN if group else Taking.REFUSED
