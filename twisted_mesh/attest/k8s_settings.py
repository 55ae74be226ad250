"""``[k8s]`` of ``--attestors FILE``, or ``[[k8s]]`` once a cluster: whose tokens are taken, and who judges them."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
from attrs import evolve, frozen

from pki.errors import Malformed, PkiError, discreet
from pki.jwt_svid.algorithms import ALGORITHMS
from pki.validity import parse_duration
from twisted_mesh.attest.attestors_file import absolute, settings_of
from twisted_mesh.attest.interface import Table
from twisted_mesh.attest.jwt_evidence import TokenRules
from twisted_mesh.attest.k8s_api import ApiAddress
from twisted_mesh.http.https_client import WebUrl

_MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
#: That of a cluster whose kube-apiserver was given no ``--service-account-issuer`` of its own by kubeadm.
USUAL_ISSUER = "https://kubernetes.default.svc.cluster.local"
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
#: What the API takes as the name of a namespace (RFC 1123 label), and of anything else.
NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_LONGEST_TIMEOUT = 30.0


class K8sTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table as it is written. ``audience`` and the three lists have the names that SPIRE has for them."""

    cluster: str
    audience: list[str]
    service_account_allow_list: list[str]
    issuer: str = USUAL_ISSUER
    server: str = "https://kubernetes.default.svc"
    ca_file: str = f"{_MOUNTED}/ca.crt"
    token_file: str = f"{_MOUNTED}/token"
    look_up_pods: bool = False
    allowed_pod_label_keys: list[str] = []
    allowed_node_label_keys: list[str] = []
    by_keys_alone: bool = False
    jwks_file: str = ""
    max_lifetime: str = "25h"
    timeout: float = 5.0
    default: bool = False


@frozen
class AllowedAccounts:
    """Service accounts as ``NAMESPACE:NAME``, ``NAMESPACE:*``, or ``*`` for each of the cluster."""

    patterns: frozenset[str]

    def has(self, namespace: str, name: str) -> bool:
        """Whether that one is among them."""
        return bool(self.patterns & {"*", f"{namespace}:*", f"{namespace}:{name}"})

    def __str__(self) -> str:
        return ", ".join(sorted(self.patterns))


@frozen
class Cluster:
    """One cluster whose pods may prove themselves here."""

    name: str
    """As ``k8s_psat:cluster`` has it."""
    rules: TokenRules
    """What its tokens say of themselves."""
    accounts: AllowedAccounts
    api: ApiAddress
    looks_up_pods: bool = False
    pod_labels: frozenset[str] = frozenset()
    node_labels: frozenset[str] = frozenset()
    by_keys_alone: bool = False
    """Whether a signature is enough, and nobody is asked whether pod and account are still there."""
    jwks_file: Path | None = None
    """With :attr:`by_keys_alone`: where the keys are; None for the API server."""
    is_default: bool = False
    """Whether the selectors ``k8s:…`` are of its pods."""


def read_clusters(table: Table, where: str) -> tuple[Cluster, ...]:
    """Raises :class:`Malformed` with all that is wrong."""
    tables = [table] if isinstance(table, Mapping) else list(table)
    wrong: list[str] = []
    clusters: list[Cluster] = []
    for one in tables:
        try:
            clusters.append(_cluster(settings_of(one, K8sTable, where), where))
        except PkiError as error:
            wrong.append(str(error))
    if not tables:
        wrong.append(f"{where}: there is no cluster in it")
    wrong += _between(clusters, where)
    if wrong:
        raise Malformed("; ".join(wrong))
    if len(clusters) == 1:
        return (evolve(clusters[0], is_default=True),)
    return tuple(clusters)


def _between(clusters: Iterable[Cluster], where: str) -> list[str]:
    """What is wrong with them beside each other."""
    wrong = []
    names: set[str] = set()
    issuers: dict[str, str] = {}
    defaults = []
    for cluster in clusters:
        if cluster.name in names:
            wrong.append(f"{where}: two clusters are called {cluster.name}")
        names.add(cluster.name)
        if (other := issuers.get(cluster.rules.issuer)) is not None:
            wrong.append(
                f"{where}: {other} and {cluster.name} have one issuer, {discreet(cluster.rules.issuer, 200)}, so a "
                "token does not say of which it is, and would be shown to the other's API server: give one of them "
                "another (kube-apiserver --service-account-issuer)"
            )
        issuers.setdefault(cluster.rules.issuer, cluster.name)
        if cluster.is_default:
            defaults.append(cluster.name)
    if len(defaults) > 1:
        wrong.append(
            f"{where}: {' and '.join(defaults)} are both the default: the selectors k8s:… are of one cluster"
        )
    return wrong


def _cluster(table: K8sTable, where: str) -> Cluster:
    where = f"{where} {discreet(table.cluster, 63)}"
    wrong = list(_mistakes(table, where))
    server = lifetime = None
    try:
        server = WebUrl.parse(table.server.removesuffix("/"), f"{where}: server", plain_hosts=())
    except PkiError as error:
        wrong.append(str(error))
    try:
        lifetime = parse_duration(table.max_lifetime)
    except PkiError as error:
        wrong.append(f"{where}: max_lifetime: {error}")
    paths = {}
    for name in ("ca_file", "token_file", "jwks_file"):
        try:
            if text := getattr(table, name):
                paths[name] = absolute(text, f"{where}: {name}")
        except PkiError as error:
            wrong.append(str(error))
    if wrong or server is None or lifetime is None:
        raise Malformed("; ".join(wrong))
    return Cluster(
        table.cluster,
        _rules(table, lifetime),
        AllowedAccounts(frozenset(table.service_account_allow_list)),
        ApiAddress(table.cluster, server, paths["ca_file"], paths["token_file"], table.timeout),
        table.look_up_pods or bool(table.allowed_pod_label_keys),
        frozenset(table.allowed_pod_label_keys),
        frozenset(table.allowed_node_label_keys),
        table.by_keys_alone,
        paths.get("jwks_file"),
        table.default,
    )


def _rules(table: K8sTable, lifetime: timedelta) -> TokenRules:
    return TokenRules(
        table.issuer, frozenset(table.audience), algorithms=tuple(ALGORITHMS), longest=lifetime
    )


def _mistakes(table: K8sTable, where: str) -> Iterable[str]:
    if not _CLUSTER.fullmatch(table.cluster):
        yield f"{where}: cluster is a name of letters, digits, dots, dashes and underscores, 63 at most"
    if not table.issuer:
        yield f"{where}: issuer is what the cluster's tokens have as iss (kube-apiserver --service-account-issuer)"
    if not table.audience or not all(table.audience):
        yield f'{where}: audience is a list of names, one of which a token must be for: audience = ["mesh"]'
    if table.issuer in table.audience:
        yield (
            f"{where}: the audience {discreet(table.issuer, 200)} is the API server's own, and so each pod's usual "
            "token would do: take another, which only the mesh has"
        )
    if not table.service_account_allow_list:
        yield f'{where}: service_account_allow_list names whose tokens are taken: ["shop:api", "web:*"], or ["*"]'
    for account in table.service_account_allow_list:
        if not _is_account(account):
            yield (
                f"{where}: service_account_allow_list: {discreet(account, 100)!r} is no service account: write "
                "NAMESPACE:NAME, NAMESPACE:* or *"
            )
    if not 0 < table.timeout <= _LONGEST_TIMEOUT:
        yield f"{where}: timeout is seconds, up to {_LONGEST_TIMEOUT:g}"
    if not table.ca_file or not table.token_file:
        yield f"{where}: ca_file and token_file are files"
    asks = table.look_up_pods or table.allowed_pod_label_keys or table.allowed_node_label_keys
    if table.by_keys_alone and asks:
        yield f"{where}: by_keys_alone asks the API server for nothing: leave out look_up_pods and the label keys"
    if table.jwks_file and not table.by_keys_alone:
        yield f"{where}: jwks_file is for by_keys_alone = true"


def _is_account(text: str) -> bool:
    namespace, colon, name = text.partition(":")
    if not colon:
        return text == "*"
    is_name = name == "*" or NAME.fullmatch(name) is not None
    return NAMESPACE.fullmatch(namespace) is not None and is_name
