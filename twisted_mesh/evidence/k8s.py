"""Evidence of a pod: its projected service-account token, which the kubelet writes anew before it ends.

That others in the pod can read the file is no objection: kubelet makes it so unless the pod says under whom it runs,
and whoever is in the pod is the pod.
"""

from pathlib import Path
from typing import ClassVar, Self

import msgspec
from attrs import define
from zope.interface import implementer

from pki.errors import PkiError, discreet
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence
from twisted_mesh.state.directory import read_file

#: Where the examples of Kubernetes mount such volumes, and ours.
USUAL_FILE = "/var/run/secrets/tokens/mesh"
_LARGEST = 16 * 1024
_MOUNT = "mount one by a projected volume: serviceAccountToken with the audience that the CA wants"


@implementer(IProver)
@define(eq=False, repr=False)
class K8sProver:
    """Shows the token in a file, as it is at that moment."""

    path: Path
    kind: ClassVar[str] = "k8s"
    wants_challenge: ClassVar[bool] = False

    @classmethod
    def of(cls, file: str | None) -> Self:
        """By default that of :data:`USUAL_FILE`."""
        return cls(Path(file or USUAL_FILE))

    @property
    def where(self) -> str:
        """For people."""
        return f"the service-account token {discreet(str(self.path))}"

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        """The token. Raises :class:`NoEvidence` where there is none."""
        try:
            data = read_file(self.path, "the service-account token", _LARGEST)
        except PkiError as error:
            raise NoEvidence(f"{error}; {_MOUNT}") from None
        token = data.decode("ascii", "replace").strip()
        if token.count(".") != 2 or not token.isascii() or not token.isprintable() or " " in token:
            raise NoEvidence(f"{self.where} is no token in three parts: {_MOUNT}")
        return AttestationData(self.kind, msgspec.json.encode(token))
