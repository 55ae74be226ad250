"""``--attest KIND[:FILE]``: how an endpoint proves what it runs on; a module is loaded once its kind is asked for."""

from collections.abc import Mapping
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import cast

from pki.errors import Malformed, discreet
from twisted_mesh.evidence.interface import IProver, ProverClass

#: By kind: ``module:Class``, a :class:`~twisted_mesh.evidence.interface.ProverClass`.
PROVERS: Mapping[str, str] = {
    "k8s": "twisted_mesh.evidence.k8s:K8sProver",
    "aws": "twisted_mesh.evidence.aws:AwsProver",
    "gcp": "twisted_mesh.evidence.gcp:GcpProver",
    "azure": "twisted_mesh.evidence.azure:AzureProver",
    "oidc": "twisted_mesh.evidence.oidc:OidcProver",
    "x509pop": "twisted_mesh.evidence.x509pop:X509PopProver",
}


def provers() -> dict[str, str]:
    """Those of :data:`PROVERS` that this version has."""
    return {kind: where for kind, where in PROVERS.items() if find_spec(where.partition(":")[0])}


def prover(text: str) -> IProver:
    """What ``--attest`` says. Nothing is fetched yet. Raises :class:`Malformed`."""
    kind, colon, file = text.partition(":")
    known = provers()
    if kind not in known:
        raise Malformed(
            f"--attest {discreet(text, 60)}: it is KIND or KIND:FILE, and a kind is one of {', '.join(known) or 'none'}"
        )
    if colon and not file:
        raise Malformed(f"--attest {discreet(text, 60)}: there is no file after the colon")
    found = cast("ProverClass", resolve_name(known[kind]))
    return found.of(file or None)
