"""The kinds of selectors of platforms, spelled as SPIRE spells them, so that entries carry over.

All of them are declared wherever entries are read: no extra has to be installed, and no platform configured, to
write an entry down. ``oidc`` is ours; SPIRE has none.
"""

import re
from collections.abc import Callable

from pki.policy.selector import KINDS, SelectorKind

#: One line of printable ASCII without a space at either end.
_TEXT = re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,316}[A-Za-z0-9])?", re.ASCII)
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
#: A static pod has the hash of its file.
_POD_UID = re.compile(rf"{_UID.pattern}|[0-9a-f]{{32}}", re.ASCII)
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{1,128}", re.ASCII)
_COUNT = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)


def _is(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


def _pair(text: str) -> bool:
    """``KEY:VALUE``; the value may be empty, as a label's may."""
    key, colon, value = text.partition(":")
    return bool(key and colon and _is(_TEXT)(key) and (not value or _is(_TEXT)(value)))


def _variable(text: str) -> bool:
    """``NAME=VALUE``; the value may be empty."""
    return "=" in text[1:] and _is(_TEXT)(text)


def _three(text: str) -> bool:
    """``ISSUER:CLAIM:VALUE``."""
    name, _, rest = text.partition(":")
    claim, _, value = rest.partition(":")
    return all(map(_is(_TEXT), (name, claim, value)))


_text, _name, _uid, _cluster, _hex, _count = map(_is, (_TEXT, _NAME, _UID, _CLUSTER, _HEX, _COUNT))
_AN_ID = "0f3c1f52-7a5e-4a8e-9d0b-3c9e1c2a4b5d"

#: Of the agent or pod that shows a projected token: SPIRE's node attestor ``k8s_psat``.
K8S_PSAT = (
    SelectorKind("k8s_psat:cluster", _cluster, "k8s_psat:cluster:prod"),
    SelectorKind("k8s_psat:agent_ns", _name, "k8s_psat:agent_ns:mesh"),
    SelectorKind("k8s_psat:agent_sa", _name, "k8s_psat:agent_sa:mesh-agent"),
    SelectorKind("k8s_psat:agent_pod_name", _name, "k8s_psat:agent_pod_name:mesh-agent-x7k2p"),
    SelectorKind("k8s_psat:agent_pod_uid", _uid, f"k8s_psat:agent_pod_uid:{_AN_ID}"),
    SelectorKind("k8s_psat:agent_pod_label", _pair, "k8s_psat:agent_pod_label:app:mesh-agent"),
    SelectorKind("k8s_psat:agent_node_ip", _text, "k8s_psat:agent_node_ip:10.0.0.7"),
    SelectorKind("k8s_psat:agent_node_name", _name, "k8s_psat:agent_node_name:node7"),
    SelectorKind("k8s_psat:agent_node_uid", _uid, f"k8s_psat:agent_node_uid:{_AN_ID}"),
    SelectorKind("k8s_psat:agent_node_label", _pair, "k8s_psat:agent_node_label:tier:front"),
)
#: Of a pod: SPIRE's workload attestor ``k8s``.
K8S = (
    SelectorKind("k8s:ns", _name, "k8s:ns:shop"),
    SelectorKind("k8s:sa", _name, "k8s:sa:api"),
    SelectorKind("k8s:pod-name", _name, "k8s:pod-name:api-5d9f-x7k2p"),
    SelectorKind("k8s:pod-uid", _is(_POD_UID), f"k8s:pod-uid:{_AN_ID}"),
    SelectorKind("k8s:pod-label", _pair, "k8s:pod-label:app:api"),
    SelectorKind("k8s:pod-owner", _pair, "k8s:pod-owner:ReplicaSet:api-5d9f"),
    SelectorKind("k8s:pod-owner-uid", _pair, f"k8s:pod-owner-uid:ReplicaSet:{_AN_ID}"),
    SelectorKind("k8s:pod-image", _text, "k8s:pod-image:docker.io/library/api:1.2"),
    SelectorKind("k8s:pod-image-count", _count, "k8s:pod-image-count:2"),
    SelectorKind("k8s:pod-init-image", _text, "k8s:pod-init-image:docker.io/library/setup:1.2"),
    SelectorKind("k8s:pod-init-image-count", _count, "k8s:pod-init-image-count:1"),
    SelectorKind("k8s:container-name", _name, "k8s:container-name:api"),
    SelectorKind("k8s:container-image", _text, "k8s:container-image:docker.io/library/api:1.2"),
    SelectorKind("k8s:node-name", _name, "k8s:node-name:node7"),
)
AWS_IID = (
    SelectorKind("aws_iid:instance:id", _name, "aws_iid:instance:id:i-0b22a22eec53b9321"),
    SelectorKind("aws_iid:image:id", _name, "aws_iid:image:id:ami-5fb8c835"),
    SelectorKind("aws_iid:region", _name, "aws_iid:region:us-west-2"),
    SelectorKind("aws_iid:account", _name, "aws_iid:account:123456789012"),
    SelectorKind("aws_iid:az", _name, "aws_iid:az:us-west-2b"),
    SelectorKind("aws_iid:tag", _pair, "aws_iid:tag:name:blog"),
    SelectorKind("aws_iid:iamrole", _text, "aws_iid:iamrole:arn:aws:iam::123456789012:role/Blog"),
    SelectorKind("aws_iid:sg:id", _name, "aws_iid:sg:id:sg-01234567"),
    SelectorKind("aws_iid:sg:name", _text, "aws_iid:sg:name:blog"),
)
GCP_IIT = (
    SelectorKind("gcp_iit:project-id", _name, "gcp_iit:project-id:big-kahuna-123456"),
    SelectorKind("gcp_iit:zone", _name, "gcp_iit:zone:us-west1-b"),
    SelectorKind("gcp_iit:instance-name", _name, "gcp_iit:instance-name:blog-server"),
    SelectorKind("gcp_iit:sa", _text, "gcp_iit:sa:123456789-compute@developer.example"),
    SelectorKind("gcp_iit:tag", _text, "gcp_iit:tag:blog-server"),
    SelectorKind("gcp_iit:label", _pair, "gcp_iit:label:key:value"),
    SelectorKind("gcp_iit:metadata", _pair, "gcp_iit:metadata:key:value"),
)
AZURE = (
    SelectorKind("azure_msi:subscription-id", _uid, f"azure_msi:subscription-id:{_AN_ID}"),
    SelectorKind("azure_msi:vm-name", _pair, "azure_msi:vm-name:frontend:blog"),
    # Ours: of an identity that is no machine's own, there is nothing else to tell.
    SelectorKind("azure_msi:tenant-id", _uid, f"azure_msi:tenant-id:{_AN_ID}"),
    SelectorKind("azure_msi:principal-id", _uid, f"azure_msi:principal-id:{_AN_ID}"),
    SelectorKind("azure_msi:identity", _pair, "azure_msi:identity:frontend:deployer"),
    SelectorKind("azure_imds:subscription-id", _uid, f"azure_imds:subscription-id:{_AN_ID}"),
    SelectorKind("azure_imds:vm-name", _pair, "azure_imds:vm-name:frontend:blog"),
)
X509POP = (
    SelectorKind("x509pop:subject:cn", _text, "x509pop:subject:cn:node7.example.org"),
    SelectorKind("x509pop:ca:fingerprint", _hex, f"x509pop:ca:fingerprint:{'0a' * 20}"),
    SelectorKind("x509pop:serialnumber", _hex, "x509pop:serialnumber:0a1b2c3d4e5f"),
    SelectorKind("x509pop:san", _pair, "x509pop:san:environment:production"),
)
DOCKER = (
    SelectorKind("docker:label", _pair, "docker:label:com.example.name:foo"),
    SelectorKind("docker:env", _variable, "docker:env:VAR=val"),
    SelectorKind("docker:image_id", _text, "docker:image_id:envoyproxy/envoy:contrib-v1.29.1"),
    SelectorKind(
        "docker:image_config_digest", _text, f"docker:image_config_digest:sha256:{'0a' * 32}"
    ),
)
#: Another name of ``systemd:unit``.
SYSTEMD = (SelectorKind("systemd:id", KINDS["systemd:unit"].is_value, "systemd:id:api.service"),)
#: Ours: what a configured issuer says of whom, by the name that the CA's file has for that issuer.
OIDC = (SelectorKind("oidc", _three, "oidc:github:repository:example/api"),)
