"""Another trust domain beside the mesh that is measured: its own CA, one server, and the files of one client."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.bench.meshes import MeshOnStage
from tests.bench.processes import Service, Stage
from tests.ca_socket import CaSocket
from tests.running import BIN, PATIENCE, until

DOMAIN = "other.mesh"
CLIENT_ID = f"spiffe://{DOMAIN}/service/web"
_SERVER_ID = f"spiffe://{DOMAIN}/service/ledger"
#: Of a CA that federates: where its bundle is, how soon it is asked for again, and where its CRLs are.
OPTIONS = ("--federation", "127.0.0.1:0", "--refresh-hint", "5s", "--crl-http", "127.0.0.1:0")


@define(eq=False)
class FederatingCa:
    """One side: a CA that serves its bundle and its CRLs to others, and its administrator."""

    domain: str
    state: Path
    service: Service

    def ask(self, method: str, path: str, body: object = None) -> Any:
        with closing(CaSocket(self.state / "ca" / "ca.sock", timeout=120)) as caller:
            if method == "POST":
                return caller.post(path, body)
            caller.request(method, path)
            answer = caller.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)

    def follow(self, other: "FederatingCa") -> None:
        """Believe the other one from now on, by its root as it is, and ask it for its bundle again and again."""
        told = other.service.wait_for
        federation = {
            "trust_domain": other.domain,
            "profile": "https_spiffe",
            "endpoint_id": f"spiffe://{other.domain}/mesh/ca",
            "bundle": (other.state / "ca" / "root.crt").read_text(),
            "url": told(r"Our bundle is served to other trust domains .* at (\S+)")[1],
            "crl_url": told(r"certificate are at (http\S+?),")[1] + "/crls",
        }
        self.ask("POST", "/api/v1/federation", federation)
        # What came with the file has no number yet, and without its CRLs nobody there is believed.
        until(lambda: self._has(other.domain), lambda: self.service.text)

    def held(self, domain: str) -> dict[str, Any]:
        """How that trust domain stands here."""
        rows = self.ask("GET", "/api/v1/federation")["federations"]
        (row,) = (row for row in rows if row["trust_domain"] == domain)
        return dict(row)

    def _has(self, domain: str) -> bool:
        row = self.held(domain)
        return bool(row["believed"] and row["sequence"])


@define(eq=False)
class FederatedPeer:
    """The other trust domain. All that it starts ends with the stage."""

    stage: Stage
    ca: FederatingCa = field(init=False)
    _mesh: MeshOnStage = field(init=False)

    def __attrs_post_init__(self) -> None:
        # A state directory of its own; its services are the stage's.
        home = self.stage.home / DOMAIN
        home.mkdir()
        self._mesh = MeshOnStage(Stage(home, self.stage.services))
        service = self._mesh.start_ca(*OPTIONS, "--trust-domain", DOMAIN, core=None)
        self.ca = FederatingCa(DOMAIN, home / "state", service)

    @property
    def files(self) -> Path:
        """Of its client, as its agent keeps them."""
        return self._mesh.stage.home / "files"

    def start(self, ours: FederatingCa, whom: str) -> dict[str, Any]:
        """Federate with ``ours`` on both sides, and let its ``whom`` in: the target of requests."""
        ours.follow(self.ca)
        self.ca.follow(ours)
        named = {"selectors": [f"unix:uid:{os.geteuid()}"], "federates_with": [ours.domain]}
        for spiffe_id in (_SERVER_ID, CLIENT_ID):
            self.ca.ask("POST", "/api/v1/entries", {**named, "spiffe_id": spiffe_id})
        options = ("--trust-domain", DOMAIN, "--spiffe-id", _SERVER_ID, "--allow", whom)
        _, port = self._mesh.start_server(*options, core=None)
        agent = self._mesh.stage.start(
            "agent",
            *(BIN / "twistd", "-n", "mesh-agent", "--trust-domain", DOMAIN),
            *("--write", self.files, "--spiffe-id", CLIENT_ID),
            env=self._mesh.env,
            core=None,
        )
        agent.wait_for(r"Files in \S+ are new: svid, bundle")
        until((self.files / f"svid_bundle.{ours.domain}.pem").exists, lambda: agent.text)
        return {"name": DOMAIN, "port": port, "expected": whom, "domain": DOMAIN}

    def caller(self, target: Mapping[str, Any], domain: str) -> dict[str, Any]:
        """The same server of ``domain``, as this one's client calls it."""
        name = f"{target['name']} from {DOMAIN}"
        files = {"kept": str(self.files), "domain": domain}
        return {**target, "name": name, "expected": CLIENT_ID, **files}

    def believes(self, ours: FederatingCa, roots: set[str]) -> float:
        """Wait until exactly these roots are believed here; seconds that it took."""
        began = time.monotonic()
        while set(self.ca.held(ours.domain)["roots"]) != roots:
            assert time.monotonic() < began + PATIENCE, self.ca.held(ours.domain)
            time.sleep(0.1)
        return time.monotonic() - began
