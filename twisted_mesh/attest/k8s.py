"""Attests a pod by its projected service-account token, which the API server of its cluster is asked about.

By ``by_keys_alone`` its signature is enough: no API server has to answer, and nobody notices that a pod is gone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from attrs import define, field, frozen
from zope.interface import implementer

from pki.errors import PkiError, discreet
from pki.jwt_svid.jwks import JwtAuthority
from pki.policy.selector import Selector, SelectorKind
from twisted_mesh.attest import kinds
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence
from twisted_mesh.attest.evidence import Attestation, Evidence, WithoutChallenge, seen
from twisted_mesh.attest.interface import IAttestor, Means, Table
from twisted_mesh.attest.jwks import LARGEST_JWKS, Jwks, JwksAddress, KeySet
from twisted_mesh.attest.jwt_evidence import EvidenceToken, KeySource
from twisted_mesh.attest.k8s_api import K8sApi
from twisted_mesh.attest.k8s_pod import Node, Pod, labels, pod_selectors
from twisted_mesh.attest.k8s_settings import Cluster, read_clusters
from twisted_mesh.attest.k8s_token import PodIdentity, demand_no_secret
from twisted_mesh.http.https_client import HttpsClient
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import read_trusted

_log = logger("attest")


@implementer(IAttestor)
@define(eq=False, repr=False)
class K8sAttestor(WithoutChallenge):
    """``k8s_psat:…`` of the pod that shows its token, and ``k8s:…`` if it is of the cluster that these are of.

    A token may be shown again: a pod that starts anew has the same one, and to refuse it would be a crash loop.
    """

    clusters: Mapping[str, "_Judged"]
    """By the issuer of their tokens."""
    now: Now
    name: ClassVar[str] = "k8s"
    table: ClassVar[str] = "k8s"
    kinds: ClassVar[tuple[SelectorKind, ...]] = (*kinds.K8S_PSAT, *kinds.K8S)

    @classmethod
    def read(cls, table: Table, where: str) -> tuple[Cluster, ...]:
        """See :class:`~twisted_mesh.attest.interface.PlatformClass`."""
        return read_clusters(table, where)

    @classmethod
    def of(cls, settings: Sequence[Cluster], means: Means) -> Self:
        """One for all clusters."""
        judged = {}
        for cluster in settings:
            api = K8sApi(means.reactor, cluster.api, means.requires_pq)
            judged[cluster.rules.issuer] = _Judged(cluster, api, _keys(cluster, api, means))
        return cls(judged, means.now)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """Raises :class:`BadEvidence`, :class:`EvidenceExpired` and :class:`AttestorUnavailable`."""
        shown = evidence.attestation
        if shown is None or shown.kind != self.table:
            return None
        token = EvidenceToken.read(shown.data)
        # Its issuer is none that anybody has now: said in words of its own.
        demand_no_secret(token.claims)
        judged = self.clusters.get(token.issuer)
        if judged is None:
            raise BadEvidence(
                f"the token is of {discreet(token.issuer, 200)}, and this CA takes none of that issuer's ([k8s] issuer "
                "in its attestors file)"
            )
        cluster = judged.cluster
        cluster.rules.judge(token, self.now())
        pod = PodIdentity.of(token.claims)
        if not cluster.accounts.has(pod.namespace, pod.account):
            raise BadEvidence(
                f"{pod.namespace}:{pod.account} is not among the service accounts whose tokens are taken "
                f"(service_account_allow_list of {cluster.name})"
            )
        found, node = await judged.confirmed(token, pod, self.now)
        return Attestation(
            f"k8s:{cluster.name}/{pod.namespace}/{pod.account}/{pod.pod_uid}",
            _selectors(cluster, pod, found, node),
        )


@define(eq=False, repr=False)
class _Judged:
    """One cluster, and who says what is true of its pods."""

    cluster: Cluster
    api: K8sApi
    keys: KeySource

    async def confirmed(
        self, token: EvidenceToken, pod: PodIdentity, now: Now
    ) -> tuple[Pod | None, Node | None]:
        """The pod and its node, as far as they are looked up. Raises what :meth:`K8sAttestor.attest` does."""
        rules = self.cluster.rules
        try:
            # Also where the API server has the last word: what is forged it need not hear of.
            await rules.prove(token, self.keys, now())
        except AttestorUnavailable:
            if self.cluster.by_keys_alone:
                raise
        if self.cluster.by_keys_alone:
            return None, None
        audiences = sorted(rules.audiences)
        pod.demand_confirmed(await self.api.review(token.text, audiences), audiences)
        found = await self._pod(pod) if self.cluster.looks_up_pods else None
        return found, await self._node(pod, found)

    async def _pod(self, pod: PodIdentity) -> Pod:
        found = await self.api.pod(pod.namespace, pod.pod)
        if found is None:
            raise BadEvidence(f"there is no pod {pod.namespace}/{pod.pod} any more")
        meta = found.metadata
        if (meta.namespace, meta.name, meta.uid) != (pod.namespace, pod.pod, pod.pod_uid):
            raise BadEvidence(
                f"the pod {pod.namespace}/{pod.pod} is another than the one that the token was made for: "
                "their UIDs differ"
            )
        if found.spec.service_account_name != pod.account:
            raise BadEvidence(f"the pod {pod.namespace}/{pod.pod} runs as another service account")
        if found.status.has_ended:
            raise BadEvidence(
                f"the pod {pod.namespace}/{pod.pod} has ended ({found.status.phase}): nobody runs in it who could ask"
            )
        if pod.node and found.spec.node_name != pod.node:
            raise BadEvidence(
                f"the pod {pod.namespace}/{pod.pod} is on another node than the token says"
            )
        return found

    async def _node(self, pod: PodIdentity, found: Pod | None) -> Node | None:
        if not self.cluster.node_labels:
            return None
        name = found.spec.node_name if found is not None else pod.node
        if not name:
            raise BadEvidence(
                "the token does not say on which node its pod is, and the pod is not looked up: have the CA look "
                f"(look_up_pods of {self.cluster.name}), or leave out allowed_node_label_keys"
            )
        node = await self.api.node(name)
        if node is None or node.metadata.name != name:
            raise BadEvidence(f"there is no node {discreet(name, 100)} any more")
        if pod.node_uid and node.metadata.uid != pod.node_uid:
            raise BadEvidence(
                f"the node {discreet(name, 100)} is another than the one that the token was made on: their UIDs differ"
            )
        return node


def _selectors(
    cluster: Cluster, pod: PodIdentity, found: Pod | None, node: Node | None
) -> frozenset[Selector]:
    name = found.spec.node_name if found is not None else pod.node
    all_of_them = [
        seen("k8s_psat:cluster", cluster.name),
        seen("k8s_psat:agent_ns", pod.namespace),
        seen("k8s_psat:agent_sa", pod.account),
        seen("k8s_psat:agent_pod_name", pod.pod),
        seen("k8s_psat:agent_pod_uid", pod.pod_uid),
        seen("k8s_psat:agent_node_name", name),
        seen("k8s_psat:agent_node_uid", node.metadata.uid if node is not None else pod.node_uid),
    ]
    if node is not None:
        all_of_them.append(
            seen("k8s_psat:agent_node_label", *labels(node.metadata, cluster.node_labels))
        )
    if found is not None:
        all_of_them.append(seen("k8s_psat:agent_node_ip", found.status.host_ip))
        all_of_them.append(
            seen("k8s_psat:agent_pod_label", *labels(found.metadata, cluster.pod_labels))
        )
    if cluster.is_default and found is not None:
        all_of_them.append(pod_selectors(found, cluster.pod_labels))
    elif cluster.is_default:
        all_of_them += [
            seen("k8s:ns", pod.namespace),
            seen("k8s:sa", pod.account),
            seen("k8s:pod-name", pod.pod),
            seen("k8s:pod-uid", pod.pod_uid),
            seen("k8s:node-name", name),
        ]
    return frozenset().union(*all_of_them)


@frozen
class _ApiKeys(JwksAddress):
    """The keys of a cluster, which its API server tells those only who have an account there."""

    api: K8sApi = field(kw_only=True)

    async def fetch(self, client: HttpsClient) -> bytes:
        """By the API's own client."""
        return await self.api.jwks()


@define(eq=False, repr=False)
class _FileKeys:
    """The keys of a cluster in a file, read again each time: a cluster may change them."""

    path: Path
    _data: bytes = field(default=b"", init=False)
    _keys: KeySet = field(factory=KeySet, init=False)

    async def find(self, kid: str) -> JwtAuthority:
        """See :class:`KeySource`."""
        try:
            data = read_trusted(self.path, "jwks_file", LARGEST_JWKS)
            if data != self._data:
                self._keys, self._data = KeySet.parse(data), data
        except PkiError as error:
            _log.warn(
                "The keys of a cluster cannot be read: {why}", event="k8s-keys-away", why=str(error)
            )
            raise AttestorUnavailable(
                "the file with the cluster's keys cannot be read now: the CA's log has the reason"
            ) from None
        return await self._keys.find(kid)


def _keys(cluster: Cluster, api: K8sApi, means: Means) -> KeySource:
    if cluster.by_keys_alone:
        _log.warn(
            "Tokens of {cluster} are believed by their signature alone: nobody will notice that a pod or an account "
            "was deleted, and what was taken from it is good until it ends",
            event="k8s-keys-alone",
            cluster=cluster.name,
        )
    if cluster.jwks_file is not None:
        return _FileKeys(cluster.jwks_file)
    address = _ApiKeys(cluster.rules.issuer, api=api)
    return Jwks(address, HttpsClient(means.reactor, requires_pq=means.requires_pq), means.reactor)
