"""``--source``: the options that go with a Workload API in place of a CA, and those that do not."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen
from twisted.logger import Logger

from pki.errors import Malformed
from pki.spiffe import SpiffeId, TrustDomain
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.identity.provider import IProvider
from twisted_mesh.interfaces import IReactor
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.workload.address import WorkloadAddress
from twisted_mesh.workload.chosen import Chosen

#: What is said to a CA; a Workload API gives what its entries say.
_FOR_A_CA = ("ca-url", "ca-file", "ca-fingerprint", "join-token", "join-token-file", "attest")
_FOR_A_CERTIFICATE = ("ttl", "dns", "ip")


@frozen
class SourceOption:
    """An address, and which of the identities there is ours."""

    address: WorkloadAddress
    chosen: Chosen
    user: CaUser = field(factory=CaUser)
    """Whose the agent may be."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> "SourceOption | None":
        """By ``--source``, ``--spiffe-id`` and ``--trust-domain``, by their names with hyphens; None without the first.

        Raises :class:`pki.errors.PkiError`.
        """
        if options["source"] is None:
            return None
        for name in _FOR_A_CA:
            if options[name] is not None:
                raise Malformed(
                    f"--source and --{name} exclude each other: an identity comes from a Workload API or from a CA"
                )
        for name in _FOR_A_CERTIFICATE:
            if options[name]:
                raise Malformed(
                    f"--{name} is for a CA: with --source the certificate is as the Workload API's entry says"
                )
        _demand_extra()
        address = WorkloadAddress.of_source(options["source"])
        text, domain = options["spiffe-id"], options["trust-domain"]
        spiffe_id = SpiffeId.parse(text) if text else None
        trust_domain = None if domain is None else TrustDomain.parse(domain)
        if spiffe_id is not None and trust_domain not in (None, spiffe_id.trust_domain):
            raise Malformed(f"--spiffe-id {spiffe_id} is not of --trust-domain {trust_domain}")
        user = CaUser.parse(options["ca-user"])
        return cls(address, Chosen(spiffe_id, trust_domain), user)

    @property
    def trust_domain(self) -> TrustDomain | None:
        """Ours, where that is said."""
        if self.chosen.spiffe_id is not None:
            return self.chosen.spiffe_id.trust_domain
        return self.chosen.trust_domain

    def source(self, reactor: IReactor, revocation: RevocationOptions, log: Logger) -> IProvider:
        """What follows the Workload API once it is asked."""
        from twisted_mesh.workload.source import AGENT, WorkloadSource

        return WorkloadSource(
            reactor,
            self.address,
            self.chosen,
            now=wall_clock,
            log=log,
            issuers=revocation.issuers,
            user=evolve(AGENT, named=self.user.named),
        )


def _demand_extra() -> None:
    """What a Workload API is spoken with is no part of the core. Raises :class:`Malformed`."""
    try:
        import google.protobuf
        import h2
    except ImportError as error:
        raise Malformed(
            f"--source needs {error.name}, which is not installed: pip install 'twisted-mesh[workload]'"
        ) from None
    del google, h2
