"""A SPIFFE bundle as another trust domain publishes it: a bad key loses that key, and not the rest."""

from attrs import frozen

from pki.errors import Problem
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle


@frozen
class FederatedDocument:
    """What was published, and what of it is not believed."""

    bundle: TrustBundle
    passed_over: tuple[Problem, ...] = ()

    @classmethod
    def parse(cls, trust_domain: TrustDomain, document: bytes) -> "FederatedDocument":
        """Raises :class:`BadBundle` where the document as a whole is none."""
        raise NotImplementedError
