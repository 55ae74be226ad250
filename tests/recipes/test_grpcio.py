"""docs/recipes/grpcio.md, with the real gRPC, by files."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.recipes.estate import (
    Estate,
    Identity,
    adapted,
    estate,
    is_open,
    run_shell,
    seconds_to_refusal,
)
from tests.recipes.pages import need, program
from tests.running import free_port, until

pytestmark = pytest.mark.recipes

SHOP = "spiffe://mesh.local/service/shop"


@frozen
class Grpc:
    estate: Estate
    port: int

    def ask(self, directory: Path) -> str:
        """What the client of the recipe prints. Raises PermissionError where it fails."""
        text = program("grpcio.md", "client", self.port)
        script = self.estate.home / "client.py"
        script.write_text(adapted(text, {"/srv/shop/mesh": directory}))
        return run_shell(f"exec {sys.executable} {script}").strip()


@pytest.fixture(scope="module")
def served() -> Iterator[Grpc]:
    need("grpc")
    with estate() as made:
        port, files, script = free_port(), made.home / "till", made.home / "server.py"
        made.agent(files, "till", "--dns", "localhost", "--ttl", "6s")
        text = program("grpcio.md", "server", port)
        script.write_text(adapted(text, {"/srv/till/mesh": files}))
        made.start(sys.executable, script)
        until(lambda: is_open(port), (made.home / "programs.log").read_text)
        yield Grpc(made, port)


def test_it_serves_who_is_allowed_and_nobody_else(served: Grpc) -> None:
    assert served.ask(served.estate.identity("shop").directory) == f"hello {SHOP}"
    with pytest.raises(PermissionError, match="PERMISSION_DENIED"):
        served.ask(served.estate.identity("other").directory)


def test_a_client_without_a_certificate_is_refused(served: Grpc) -> None:
    with pytest.raises((OSError, PermissionError)):
        nobody = served.estate.identity("shop")
        (nobody.current / "svid.pem").write_bytes(b"")
        served.ask(nobody.directory)


def test_no_call_fails_over_rotations_of_both(served: Grpc) -> None:
    directory = served.estate.home / "rotating"
    agent = served.estate.agent(directory, "shop", "--ttl", "6s")
    files = Identity(served.estate.home / "till")
    seen = {files.serial}
    while len(seen) <= 2:
        assert served.ask(directory) == f"hello {SHOP}"
        seen.add(files.serial)
    assert agent.stop() == 0


def test_who_is_revoked_is_refused_at_its_next_call(served: Grpc) -> None:
    shop = served.estate.identity("shop")
    assert served.ask(shop.directory)
    took = seconds_to_refusal(lambda: served.ask(shop.directory), served.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    with pytest.raises(PermissionError, match="PERMISSION_DENIED"):
        served.ask(shop.directory)
    assert served.ask(served.estate.identity("shop").directory)
