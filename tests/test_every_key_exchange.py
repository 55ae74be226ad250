"""No TLS of the programs passes ``--require-pq`` by: whoever makes a context is told, and every context is known."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "twisted_mesh"
#: What becomes TLS: whoever calls it says whether hybrid groups are required, by a keyword or by place.
TOLD = {
    "BundleFetcher",
    "CaConnection",
    "HttpsClient",
    "K8sApi",
    "Kubelet",
    "Means",
    "Role",
    "StoreGround",
    "PinnedTls",
    "client_tls",
    "signer_tls",
    "WebCertificate",
    "WebTrust",
    "ca_client",
    "ca_security",
    "pinned_security",
    "Wanted",
    "local_workloads",
}
#: Where contexts of TLS are made. What is new here belongs behind --require-pq too.
CONTEXTS = {
    "attest/kubelet.py": "insists",
    "tls/contexts.py": "insists",
    "tls/web.py": "insists",
    "tls/web_client.py": "insists",
    "tls/rehearsal.py": "insists",
    "stdlib/context.py": "insists",
    "tls/groups.py": "to see whether OpenSSL can",
    "stdlib/joining.py": "to see whether Python can",
    "stdlib/settings.py": "speaks to a context that was made elsewhere",
    "evidence/oidc.py": "refused with --require-pq, by its address",
    "identity/blocking.py": "mesh-ctl's, which has no such option",
    "tls/pinned_client.py": "insists",
    "tls/pinned_server.py": "a signer's, which has no such option: its client is of the CA that may",
    "tls/probe.py": "looks at servers, and says nothing",
    "tls/record_layer.py": "to see what pyOpenSSL can; nobody is spoken to",
    "cli/demo.py": "the demonstration's outside caller",
    "cli/federation_demo.py": "the demonstration's outside caller",
    "testing/member.py": "for tests of programs that use the mesh",
}
#: What makes one.
MAKING = {"CertificateOptions", "Context", "SSLContext", "create_default_context", "wrap_socket"}
#: Another thing of that name.
OTHERS = {
    ("ca/first_installation.py", "Wanted"),
    ("ca/rotation/certification.py", "Wanted"),
    ("cli/ctl/key_stores.py", "StoreGround"),  # of tools that are told no such option
    ("taps/signer.py", "StoreGround"),
    (
        "ctlog/witness_client.py",
        "PinnedTls",
    ),  # of logs, which have no such option: notes are public
    ("monitor/webhook.py", "HttpsClient"),  # of mesh-ctl ct watch, which has none either
    ("taps/agent.py", "ca_client"),
    ("taps/agent.py", "local_workloads"),
    ("taps/ca_listeners.py", "local_workloads"),
    ("taps/identity_options.py", "ca_client"),
}


@cache
def calls() -> tuple[tuple[str, ast.Call, str], ...]:
    return tuple(_calls())


def _calls() -> Iterator[tuple[str, ast.Call, str]]:
    called = re.compile(rf"\b({'|'.join(TOLD | MAKING)})\(")
    for path in sorted(PACKAGE.rglob("*.py")):
        if not called.search(text := path.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                yield str(path.relative_to(PACKAGE)), node, name


def says_so(node: ast.Call) -> bool:
    words = [*(keyword.value for keyword in node.keywords if keyword.arg), *node.args]
    names = {keyword.arg or "" for keyword in node.keywords} | {
        getattr(part, "attr", getattr(part, "id", getattr(part, "value", "")))
        for word in words
        for part in ast.walk(word)
        if isinstance(part, ast.Attribute | ast.Name | ast.Constant)
    }
    return bool(names & {"requires_pq", "require_pq", "require-pq"})


def test_whoever_makes_tls_says_whether_hybrid_groups_are_required() -> None:
    silent = {
        f"{path}:{node.lineno} {name}"
        for path, node, name in calls()
        if name in TOLD
        and path not in CONTEXTS
        and (path, name) not in OTHERS
        and not says_so(node)
    }
    assert not silent


def test_every_context_of_tls_is_known() -> None:
    made = {
        path
        for path, node, name in calls()
        if name in MAKING - {"Context"}
        or (name == "Context" and getattr(getattr(node.func, "value", None), "id", "") == "SSL")
    }
    assert made <= CONTEXTS.keys() | {"stdlib/guard.py", "stdlib/ca_connection.py"}


def test_who_is_said_to_insist_does() -> None:
    for path, what in CONTEXTS.items():
        if what == "insists":
            text = (PACKAGE / path).read_text()
            assert "groups.insist(" in text or "require_pq=" in text, path
