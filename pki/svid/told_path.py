"""The way to a root that a CA tells its leaves' holders to serve above them: another one for the same leaf and key.

While a root is replaced, the issuing key has two certificates of one name, each below a root of its own. A holder
sends exactly one of the two ways, since a verifier may look at one only (RFC 4158 section 1.5), and which one the
CA says. What it says is judged here before it is served: whoever can write to a feed cannot make a holder serve
what its peers would refuse.
"""

from collections.abc import Callable, Mapping, Sequence

from cryptography import x509

from pki.errors import Malformed, Refused
from pki.keys import key_id
from pki.svid.chain import Verdict
from pki.svid.x509svid import X509Svid

ToldPaths = Mapping[str, tuple[x509.Certificate, ...]]
"""By the key id of an issuing CA: what is to be served above its leaves, without the root."""


def other_path(svid: X509Svid, told: ToldPaths) -> tuple[x509.Certificate, ...] | None:
    """What is told to be served above ``svid``; None where that is what is served, or where nothing is told of it."""
    if not svid.intermediates:
        return None  # a root has issued it, and there is no other
    path = told.get(key_id(svid.intermediates[0].public_key()))
    return None if path == svid.intermediates else path


def switched(
    svid: X509Svid,
    path: tuple[x509.Certificate, ...],
    judge: Callable[[Sequence[x509.Certificate]], Verdict],
) -> X509Svid:
    """The same leaf and key below ``path``, which ``judge``, as a peer would, finds good.

    Raises :class:`Malformed` for what is no way, or more than one, and :class:`Refused`.
    """
    moved = X509Svid.assemble((svid.leaf, *path), svid.key)
    verdict = judge(moved.chain)
    if not verdict.ok:
        raise Refused(verdict.problems)
    if verdict.path[:-1] != moved.chain:
        raise Malformed(
            f"of the {len(path)} certificates told to be served above {svid.spiffe_id} {len(verdict.path) - 2} lead to "
            "a root: exactly one way is served, in its order"
        )
    return moved
