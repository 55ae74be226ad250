"""A handshake that found no group in common, where hybrid ones are required: what each end can tell of it."""

from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import PkiError, Problem
from twisted_mesh.tls.alerts import RefusedByPeer, reasons_of
from twisted_mesh.tls.client_hello import offered_groups
from twisted_mesh.tls.handshake_meter import HandshakeMeter
from twisted_mesh.tls.hybrid import HAVE_HYBRID, NAMED, REQUIRED_BY

#: OpenSSL's word for a hello without a group that we take.
_NO_GROUP = "no suitable key share"


def without_group(reason: Failure, meter: HandshakeMeter | None) -> Problem | None:
    """Why a server that requires hybrid groups has refused a client, where it is that it offers none of them."""
    if meter is None or not meter.keeps_hello or _NO_GROUP not in reasons_of(reason):
        return None
    offered = offered_groups(meter.hello)
    told = ", ".join(offered or ()) or "groups that could not be read"
    return Problem(
        Code.CLASSICAL_KEY_EXCHANGE,
        f"the peer offers to exchange keys by {told}, and a hybrid group is required here",
        HAVE_HYBRID,
        REQUIRED_BY,
    )


def offered_in_vain(error: PkiError) -> PkiError:
    """``error`` that ended a client's handshake which offers hybrid groups alone, where it is most likely for that."""
    if not isinstance(error, RefusedByPeer) or error.problems[0].code != Code.HANDSHAKE_FAILURE:
        return error
    return type(error)(
        Problem(
            Code.CLASSICAL_KEY_EXCHANGE,
            f"the server has nothing in common with us, and most likely no hybrid group: we offer {NAMED} and no other",
            f"{HAVE_HYBRID}; pki-inspect probe lists those that a server takes",
            f"{REQUIRED_BY}; {error.problems[0].rule}",
        )
    )
