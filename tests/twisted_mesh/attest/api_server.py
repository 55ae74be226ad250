"""An API server of Kubernetes as far as a CA asks one, and as strict: what the real one would not answer, it refuses.

It signs tokens and reviews them as kube-apiserver does: by signature, issuer, audience, time, and whether account and
pod are still there with the UIDs that the token has.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import jwt
from attrs import define, field
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.twisted_mesh.federation.hostile import Shown, web_certificate, web_root

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "mesh"
OWN_TOKEN = "of-the-ca-itself"
GROUP = "authentication.kubernetes.io"


def uid(name: str) -> str:
    """The same for the same name."""
    return str(uuid5(NAMESPACE_DNS, name))


@cache
def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


Fault = Callable[["Handler"], None]
"""What is done in the place of an answer."""


@define(eq=False, slots=False)
class ApiServer:
    """What one cluster knows, and how it answers."""

    issuer: str = ISSUER
    key: str = "cluster"
    accounts: dict[tuple[str, str], str] = field(factory=lambda: {("shop", "api"): uid("sa")})
    pods: dict[tuple[str, str], dict[str, Any]] = field(factory=dict)
    nodes: dict[str, dict[str, Any]] = field(factory=dict)
    asked: list[str] = field(factory=list)
    """Method and path of each request."""
    fault: Fault | None = None
    review: Callable[[dict[str, Any]], None] = lambda _: None
    """Alters the status of a TokenReview."""
    port: int = 0

    def __attrs_post_init__(self) -> None:
        self.run_pod()

    def run_pod(self, name: str = "api-7k", account: str = "api", made: str = "pod") -> None:
        """A pod of that name, with a UID that ``made`` gives it, on a node."""
        self.nodes["node7"] = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {
                "name": "node7",
                "uid": uid("node"),
                "labels": {"tier": "front", "x": "y"},
            },
        }
        self.pods["shop", name] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": "shop",
                "uid": uid(made),
                "labels": {"app": "api", "secret": "no"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "api", "uid": uid("rs")}],
            },
            "spec": {"serviceAccountName": account, "nodeName": "node7", "containers": []},
            "status": {
                "phase": "Running",
                "hostIP": "10.0.0.7",
                "containerStatuses": [
                    {"name": "api", "image": "example/api:1", "imageID": "example/api@sha256:00"}
                ],
            },
        }

    def claims(self, **other: Any) -> dict[str, Any]:
        """Of a projected token for the pod; ``other`` claims replace them."""
        now = int(time.time())
        bound = {
            "namespace": "shop",
            "node": {"name": "node7", "uid": uid("node")},
            "pod": {"name": "api-7k", "uid": uid("pod")},
            "serviceaccount": {"name": "api", "uid": uid("sa")},
            "warnafter": now + 3000,
        }
        usual = {
            "aud": [AUDIENCE],
            "exp": now + 3600,
            "iat": now,
            "nbf": now,
            "iss": self.issuer,
            "jti": uid("token"),
            "kubernetes.io": bound,
            "sub": "system:serviceaccount:shop:api",
        }
        return {**usual, **other}

    def token(self, key: str = "", kid: str = "", **other: Any) -> str:
        """A signed one. ``key`` signs it in the place of the cluster's."""
        signer = private_key(key or self.key)
        return jwt.encode(
            self.claims(**other), signer, algorithm="ES256", headers={"kid": kid or self.key}
        )

    def jwks(self) -> bytes:
        public = jwt.algorithms.ECAlgorithm.to_jwk(private_key(self.key).public_key(), as_dict=True)
        return json.dumps(
            {"keys": [{**public, "kid": self.key, "use": "sig", "alg": "ES256"}]}
        ).encode()

    def reviewed(self, token: str, audiences: list[str]) -> dict[str, Any]:
        """The status that kube-apiserver gives."""
        try:
            claims = jwt.decode(
                token,
                private_key(self.key).public_key(),
                algorithms=["ES256"],
                audience=audiences,
                issuer=self.issuer,
            )
        except jwt.InvalidTokenError:
            return {"user": {}, "error": "[invalid bearer token, Token has been invalidated]"}
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        if self.accounts.get((namespace, account["name"])) != account["uid"]:
            return {"user": {}, "error": "[invalid bearer token, service account is gone]"}
        pod = bound.get("pod")
        if pod is not None:
            known = self.pods.get((namespace, pod["name"]))
            if known is None or known["metadata"]["uid"] != pod["uid"]:
                return {"user": {}, "error": "[invalid bearer token, pod is gone]"}
        extra = (
            {f"{GROUP}/pod-name": [pod["name"]], f"{GROUP}/pod-uid": [pod["uid"]]} if pod else {}
        )
        if node := bound.get("node"):
            extra |= {f"{GROUP}/node-name": [node["name"]], f"{GROUP}/node-uid": [node["uid"]]}
        user = {
            "username": claims["sub"],
            "uid": account["uid"],
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
            "extra": extra,
        }
        meant = [name for name in audiences if name in claims["aud"]]
        return {"authenticated": True, "user": user, "audiences": meant}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    known: ApiServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def say(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, message: str) -> None:
        self.say(status, {"kind": "Status", "apiVersion": "v1", "message": message, "code": status})

    def _answer(self, usual: Callable[[], None]) -> None:
        self.known.asked.append(f"{self.command} {self.path}")
        if self.headers["Authorization"] != f"Bearer {OWN_TOKEN}":
            self.refuse(401, "Unauthorized")
        elif self.known.fault is not None:
            self.known.fault(self)
        else:
            usual()

    def _get(self) -> None:
        known, parts = self.known, self.path.split("/")
        if self.path == "/openid/v1/jwks":
            if "application/jwk-set+json" not in self.headers["Accept"]:
                return self.refuse(406, "Available representations: application/jwk-set+json")
            self.say(200, known.jwks())
        elif (
            parts[:4] == ["", "api", "v1", "namespaces"] and len(parts) == 7 and parts[5] == "pods"
        ):
            self._object(known.pods.get((parts[4], parts[6])))
        elif parts[:4] == ["", "api", "v1", "nodes"] and len(parts) == 5:
            self._object(known.nodes.get(parts[4]))
        else:
            self.refuse(404, "the server could not find the requested resource")
        return None

    def _object(self, found: Mapping[str, Any] | None) -> None:
        if found is None:
            self.refuse(404, "not found")
        else:
            self.say(200, found)

    def _post(self) -> None:
        if self.path != "/apis/authentication.k8s.io/v1/tokenreviews":
            return self.refuse(404, "the server could not find the requested resource")
        if self.headers["Content-Type"] != "application/json":
            return self.refuse(415, "the body of the request was in an unknown format")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        spec = asked.pop("spec")
        if asked != {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}:
            return self.refuse(400, "no TokenReview")
        if spec.keys() != {"token", "audiences"}:
            return self.refuse(400, "unknown fields")
        status = self.known.reviewed(spec["token"], spec["audiences"])
        self.known.review(status)
        self.say(201, {**asked, "metadata": {}, "spec": spec, "status": status})
        return None


@contextmanager
def serving(api: ApiServer, shown: Shown | None = None) -> Iterator[ApiServer]:
    """``api`` on this machine, at ``https://localhost:PORT`` or with what else ``shown`` is for."""
    shown = shown or web_certificate("localhost")
    handler = type("Bound", (Handler,), {"known": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context_of(shown).wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def context_of(shown: Shown) -> ssl.SSLContext:
    """What listens with that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        path = Path(directory, "pem")
        path.write_bytes(
            shown.key.private_key.private_bytes(  # type: ignore[union-attr]
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in shown.chain)
        )
        context.load_cert_chain(path)
    return context


def written(api: ApiServer, directory: Path, **other: Any) -> dict[str, Any]:
    """The table ``[k8s]`` for ``api``, whose files it writes to ``directory``."""
    ca_file, token_file = directory / "ca.crt", directory / "token"
    root, _ = web_root()
    ca_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    token_file.write_text(f"{OWN_TOKEN}\n")
    for path in (ca_file, token_file):
        path.chmod(0o644)
    usual = {
        "cluster": "prod",
        "issuer": api.issuer,
        "audience": [AUDIENCE],
        "service_account_allow_list": ["shop:*"],
        "server": f"https://localhost:{api.port or 6443}",
        "ca_file": str(ca_file),
        "token_file": str(token_file),
    }
    return {**usual, **other}
