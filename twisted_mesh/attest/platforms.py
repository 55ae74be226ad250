"""Which platforms a CA can take evidence of, one line each; a module is loaded once its platform is configured."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import cast

from attrs import frozen

from pki.errors import Malformed
from pki.policy.selector import SelectorKind
from twisted_mesh.attest import kinds
from twisted_mesh.attest.interface import PlatformClass


class MissingExtra(Malformed):
    """What reads this platform's evidence is not installed."""


@frozen
class Platform:
    """One kind of evidence, known before anything is loaded that reads it."""

    where: str
    """``module:Class``, a :class:`~twisted_mesh.attest.interface.PlatformClass`."""
    kinds: tuple[SelectorKind, ...]
    """Of the selectors that it may find."""
    extra: str = ""
    """Of this package, with what it needs besides."""

    def load(self) -> PlatformClass:
        """Raises :class:`MissingExtra`."""
        try:
            return cast("PlatformClass", resolve_name(self.where))
        except ImportError as error:
            if not self.extra:
                raise
            raise MissingExtra(
                f"{error.name or error} is not installed here: pip install 'twisted-mesh[{self.extra}]'"
            ) from None


#: By the kind that its evidence has on the wire, which is also the name of its table in ``--attestors FILE``.
PLATFORMS: Mapping[str, Platform] = {
    "k8s": Platform("twisted_mesh.attest.k8s:K8sAttestor", (*kinds.K8S_PSAT, *kinds.K8S), "k8s"),
    "aws": Platform("twisted_mesh.attest.aws:AwsAttestor", kinds.AWS_IID, "aws"),
    "gcp": Platform("twisted_mesh.attest.gcp:GcpAttestor", kinds.GCP_IIT, "oidc"),
    "azure": Platform("twisted_mesh.attest.azure:AzureAttestor", kinds.AZURE, "oidc"),
    "oidc": Platform("twisted_mesh.attest.oidc:OidcAttestor", kinds.OIDC, "oidc"),
    "x509pop": Platform("twisted_mesh.attest.x509pop:X509PopAttestor", kinds.X509POP),
}
