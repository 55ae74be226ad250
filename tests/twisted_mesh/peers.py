"""Peers without a handshake: who they are, and the certificates that they rest on."""

from collections.abc import Sequence

from attrs import define, field
from cryptography import x509

from pki.errors import Problem
from pki.spiffe import SpiffeId
from tests.authorities import Mesh, mesh
from twisted_mesh.runtime.log import TlsFacts, codes
from twisted_mesh.trust.connections import Peer

FACTS = TlsFacts("TLS 1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "", "", (), ())


def peer_of(
    leaf: x509.Certificate, ca: Mesh | None = None, spiffe_id: SpiffeId | None = None
) -> Peer:
    """The peer that presented ``leaf`` under ``ca``."""
    ca = ca or mesh()
    path = (leaf, *ca.issuing.intermediates, ca.root.certificate)
    return Peer(spiffe_id or ca.trust_domain.member("service", "backend"), path, FACTS, 1)


@define(eq=False)
class Connected:
    """A live connection that notes how often it was judged again, and why it was closed.

    What there is to object is the test's to say.
    """

    peer: Peer | None = None
    objecting: tuple[Problem, ...] = ()
    judged: int = 0
    severed: list[str] = field(factory=list)
    deaf: list[str] = field(factory=list)

    def objections(self) -> Sequence[Problem]:
        self.judged += 1
        return self.objecting

    def hear_no_more(self, problems: Sequence[Problem]) -> None:
        self.deaf.append(codes(problems))

    def sever(self, problems: Sequence[Problem]) -> None:
        self.severed.append(codes(problems))
