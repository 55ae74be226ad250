"""How a program without a reactor secures its connection to a CA."""

from twisted.internet.task import Clock

from twisted_mesh.http.address import server_name
from twisted_mesh.identity.bootstrap import ca_security, pinned_security
from twisted_mesh.identity.ca_place import CaPlace
from twisted_mesh.tls.blocking import BlockingTls


def blocking_tls(place: CaPlace) -> BlockingTls:
    """What secures the connections to the CA at ``place``, which is at ``https``."""
    clock = Clock()  # for a log of refusals that nobody keeps
    if place.pin is not None:
        security = pinned_security(clock, place.pin)
    elif place.roots is not None:
        security = ca_security(clock, place.roots)
    else:
        raise AssertionError("a CA at https has a root or a pin")
    tls = BlockingTls(security, server_name(place.address.host))
    if place.shown is not None:
        tls.present(place.shown, place.origin)
    return tls
