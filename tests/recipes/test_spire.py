"""docs/recipes/spire.md: an identity from the real SPIRE, where its server and agent are on the PATH."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define

from tests.running import Mesh, Running, free_port, is_listening, mesh, until

pytestmark = pytest.mark.recipes
DOMAIN, NODE = "spiffe://example.org", "spiffe://example.org/node"
_SERVER = """
server {{
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{home}/server.sock"
    trust_domain = "example.org"
    data_dir = "{home}"
}}
plugins {{
    DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{home}/spire.sqlite3" }} }}
    KeyManager "memory" {{ plugin_data {{}} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
    data_dir = "{home}/agent"
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{home}/agent.sock"
    trust_domain = "example.org"
    trust_bundle_path = "{home}/bundle.pem"
}}
plugins {{
    KeyManager "memory" {{ plugin_data {{}} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


@define(eq=False)
class Spire:
    """SPIRE's server and agent, and a place for our programs."""

    mesh: Mesh
    home: Path
    agent: Running

    @property
    def source(self) -> str:
        return f"workload:unix://{self.home}/agent.sock"

    def entry(self, path: str, seconds: int) -> str:
        """For every process of this user; SPIRE's ID of it."""
        told = ctl(
            self.home,
            *("entry", "create", "-output", "json", "-parentID", NODE),
            *("-spiffeID", f"{DOMAIN}{path}", "-selector", f"unix:uid:{os.getuid()}"),
            *("-x509SVIDTTL", str(seconds)),
        )
        found: str = json.loads(told)["results"][0]["entry"]["id"]
        return found


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on the PATH: it is built from github.com/spiffe/spire")
    return found


def ctl(home: Path, *words: str) -> str:
    """What spire-server says."""
    noun, verb, *rest = words
    command = [program("spire-server"), noun, verb, "-socketPath", str(home / "server.sock"), *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def spire() -> Iterator[Spire]:
    server, agent = program("spire-server"), program("spire-agent")
    with tempfile.TemporaryDirectory() as directory, mesh(Path(directory)) as made:
        home, port = Path(directory), free_port()
        for name, text in (("server.conf", _SERVER), ("agent.conf", _AGENT)):
            (home / name).write_text(text.format(home=home, port=port))
        running = Running.start(server, "run", "-config", home / "server.conf", cwd=home, real=True)
        made.processes.append(running)
        until(lambda: is_listening(home / "server.sock"), lambda: running.text)
        (home / "bundle.pem").write_text(ctl(home, "bundle", "show"))
        told = ctl(home, "token", "generate", "-spiffeID", NODE, "-output", "json")
        token = json.loads(told)["value"]
        words = (agent, "run", "-config", home / "agent.conf", "-joinToken", token)
        node = Running.start(*words, cwd=home, real=True)
        made.processes.append(node)
        until(lambda: is_listening(home / "agent.sock"), lambda: node.text)
        yield Spire(made, home, node)


def test_our_programs_live_on_spire() -> None:
    with spire() as made:
        entry = made.entry("/service/api-server", 20)
        server = made.mesh.start_server(
            *("--source", made.source, "--allow", f"{DOMAIN}/service/**"),
        )

        def ask(*options: str) -> subprocess.CompletedProcess[str]:
            known = ("--source", made.source, "--server-id", f"{DOMAIN}/service/api-server")
            return made.mesh.client(*known, *options)

        done = ask("--format", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["our_id"] == f"{DOMAIN}/service/api-server"
        # SPIRE renews at half of a life, and says so by itself.
        server.wait_for(r"rotation triggered \(the Workload API has a new one\)")
        server.wait_for("rotation complete")
        assert ask().returncode == 0
        done = ask("--spiffe-id", f"{DOMAIN}/service/other")
        assert f"it has {DOMAIN}/service/api-server" in done.stderr
        # What SPIRE takes away is used no more.
        ctl(made.home, "entry", "delete", "-entryID", entry)
        server.wait_for("was taken away by the Workload API")
        done = ask()
        assert done.returncode == 1
        assert "PERMISSION_DENIED" in done.stderr
        # And it comes again with an entry.
        made.entry("/service/api-server", 20)
        server.wait_for("the certificate is fresh")
        assert ask().returncode == 0


def test_files_are_kept_of_spires_identity() -> None:
    with spire() as made:
        made.entry("/service/web", 20)
        files = made.home / "files"
        agent = made.mesh.twistd("mesh-agent", "--write", str(files), "--source", made.source)
        agent.wait_for(r"Files in \S+ are new: svid, bundle, crl")
        assert (files / "crl.pem").read_bytes() == b""
        agent.wait_for(r"Files in \S+ are new: svid$")
