"""The interface of a prover: who fetches evidence of the platform that this process runs on."""

from typing import Protocol

from zope.interface import Attribute, Interface

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.evidence.data import AttestationData

__all__ = ["AttestationData", "IProver", "NoEvidence", "ProverClass"]


class NoEvidence(PkiError):
    """The platform gives no evidence here, or none now; its text says where it was looked for."""

    code = Code.NO_EVIDENCE


class IProver(Interface):
    """Fetches evidence of one kind. It blocks, needs no reactor, and is called on a thread where there is one."""

    kind: str = Attribute("As on the wire: ``k8s``.")
    where: str = Attribute("For people: the file, or the address, that the evidence comes from.")
    wants_challenge: bool = Attribute("Whether the CA is to be asked for a challenge first.")

    def prove(challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        """Fresh evidence, within some seconds.

        ``challenge`` is the CA's, ASCII; None where it wants none, or was not asked. ``key`` is the DER of
        the public key (SubjectPublicKeyInfo) that is to be certified, and ``trust_domain`` the CA's, for evidence
        that can be bound to them.
        Raises :class:`NoEvidence`, and other :class:`pki.errors.PkiError`.
        """


class ProverClass(Protocol):
    """A class of provers, as :data:`~twisted_mesh.evidence.option.PROVERS` has it."""

    def of(self, file: str | None) -> IProver:
        """The prover of ``--attest KIND`` or ``--attest KIND:FILE``.

        Nothing is fetched yet. Raises :class:`pki.errors.Malformed` where that kind wants a file, or takes none.
        """
