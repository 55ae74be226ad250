"""What a projected service-account token says of its pod, and whether the API server's word on it is about the same.

Bound to a pod by the claims of ``kubernetes.io``: such a token is good as long as the pod is there, and no longer.
"""

from collections.abc import Collection, Mapping
from typing import Self

import msgspec
from attrs import frozen

from pki.errors import discreet
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.k8s_api import TokenReviewStatus
from twisted_mesh.attest.k8s_settings import NAME, NAMESPACE

_PROJECTED = "mount one into the pod by a projected volume (serviceAccountToken with the audience that the CA wants)"
#: Of the tokens that Kubernetes kept in Secrets, which were good for ever and bound to nothing.
_OF_A_SECRET = "kubernetes.io/serviceaccount/secret.name"  # noqa: S105


class _Bound(msgspec.Struct, frozen=True):
    name: str
    uid: str


class _Private(msgspec.Struct, frozen=True):
    namespace: str
    serviceaccount: _Bound
    pod: _Bound | None = None
    node: _Bound | None = None


@frozen
class PodIdentity:
    """A pod, as a token says it: proven once the API server, or its key, has said so."""

    namespace: str
    account: str
    account_uid: str
    pod: str
    pod_uid: str
    node: str = ""
    """Empty where the cluster's tokens do not say it (before Kubernetes 1.30)."""
    node_uid: str = ""

    @classmethod
    def of(cls, claims: Mapping[str, object]) -> Self:
        """Raises :class:`BadEvidence` for a token that is bound to no pod."""
        try:
            said = msgspec.convert(claims.get("kubernetes.io"), _Private)
        except msgspec.ValidationError:
            raise BadEvidence(f"the token is no service account's: {_PROJECTED}") from None
        if said.pod is None:
            raise BadEvidence(
                f"the token is bound to no pod, so nobody can say where it came from or when it ends: {_PROJECTED}"
            )
        node = said.node or _Bound("", "")
        found = cls(
            said.namespace,
            said.serviceaccount.name,
            said.serviceaccount.uid,
            said.pod.name,
            said.pod.uid,
            node.name,
            node.uid,
        )
        names = [found.account, found.pod, *filter(None, [found.node])]
        whole = found.account_uid and found.pod_uid and NAMESPACE.fullmatch(found.namespace)
        if not whole or not all(NAME.fullmatch(name) for name in names):
            raise BadEvidence("the token names a pod, account or node as no cluster names one")
        if claims.get("sub") != found.username:
            raise BadEvidence("the token's sub is another than the service account that it names")
        return found

    @property
    def username(self) -> str:
        """Of its service account, as the API server has it."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    def demand_confirmed(self, status: TokenReviewStatus, audiences: Collection[str]) -> None:
        """Raises :class:`BadEvidence` where the API server's word is no yes, or is about somebody else."""
        if not status.authenticated:
            why = discreet(status.error, 200) or "it does not say why"
            raise BadEvidence(
                f"the API server does not know this token ({why}): it is forged, or its pod or service account is "
                "gone; a pod that runs has a fresh one in its file"
            )
        if not set(status.audiences or ()) & set(audiences):
            raise BadEvidence(
                "the API server does not say that the token is for this CA: it must be for "
                f"{' or '.join(sorted(audiences))}; one that says no audience does not look at them"
            )
        user = status.user
        said = (user.username, user.uid, user.only("pod-name"), user.only("pod-uid"))
        if said != (self.username, self.account_uid, self.pod, self.pod_uid):
            raise BadEvidence(
                f"the API server takes the token for {discreet(user.username, 200) or 'nobody'}'s, in the pod "
                f"{discreet(user.only('pod-name'), 100) or '(none)'}, and the token says {self.username}, in the pod "
                f"{self.pod}, or their UIDs differ: nothing of it is believed"
            )
        node = user.only("node-name")
        if node and self.node and node != self.node:
            raise BadEvidence(
                "the API server and the token name two nodes: nothing of it is believed"
            )


def demand_no_secret(claims: Mapping[str, object]) -> None:
    """Raises :class:`BadEvidence` for a token of a Secret."""
    if _OF_A_SECRET in claims:
        raise BadEvidence(
            f"the token is one that Kubernetes keeps in a Secret: it is bound to no pod and never ends; {_PROJECTED}"
        )
