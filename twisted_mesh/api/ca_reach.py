"""What is said of a CA that is not reached: by whoever waits on a reactor, and by whoever blocks."""

from twisted_mesh.http.address import CaAddress
from twisted_mesh.runtime.reach import Reach


def reach_of(address: CaAddress, seconds: float) -> Reach:
    """Of attempts to reach the CA at ``address``, which may take so long; 0 where that is not said."""
    start = "start it (twistd -n mesh-ca) there, or check --ca-url"
    if address.scheme == "unix":
        start = "start it (twistd -n mesh-ca) with the same state directory, or name its socket with --ca-url"
    return Reach(
        str(address), address.host, address.path, "CA", start, address.is_usual_port, seconds
    )
