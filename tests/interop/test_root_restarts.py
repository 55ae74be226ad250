"""Services that were told of a root by its fingerprint, through the rotation of it: one that runs, one that is off."""

import json

import pytest

from tests.interop.house import READY, House
from tests.interop.test_ctl_root import BRIEF, step

WEB, SHOP = "spiffe://mesh.local/service/web", "spiffe://mesh.local/service/shop"
IN_MEMORY = "tests/twisted_mesh/identity/test_rotation_over_tls.py::"


def joining(house: House, spiffe_id: str, fingerprint: str) -> tuple[str, ...]:
    """The options of a machine of its own: an address and a fingerprint are all that it has of the CA."""
    return (
        *("--ca-url", f"https://localhost:{house.ca_port}", "--ca-fingerprint", fingerprint),
        *("--spiffe-id", spiffe_id, "--dns", "localhost", "--allow", "spiffe://mesh.local/**"),
        *("--state-dir", str(house.home / spiffe_id.rpartition("/")[2])),
    )


def token(house: House, spiffe_id: str) -> tuple[str, str]:
    made = house.ctl(
        *("token", "create", "--spiffe-id", spiffe_id, "--dns", "localhost", "--format", "json")
    )
    return "--join-token", json.loads(made.stdout)["token"]


@pytest.mark.interop(
    f"{IN_MEMORY}test_options_that_name_the_old_root_start_it_at_every_step_and_after_the_last"
)
def test_the_old_fingerprint_starts_who_was_there_and_a_new_line_who_was_not(house: House) -> None:
    house.start_ca(*BRIEF)
    old = house.fingerprint
    web, shop = joining(house, WEB, old), joining(house, SHOP, old)
    house.start_server(*shop, *token(house, SHOP)).stop()
    server = house.start_server(*web, *token(house, WEB))
    step(house, "prepare", "--yes")
    step(house, "activate", "--force", "--yes")
    server.wait_for(r"Issuer: .*generation 2,")
    step(house, "retire", "--force", "--yes")
    server.wait_for(
        r"served by another way now, .*: it leads to CN=mtls-mesh-root-ca,OU=generation 2"
    )
    assert house.client("--server-id", WEB).returncode == 0
    assert house.fingerprint != old
    assert server.stop() == 0
    for _ in range(2):
        server = house.start_server(*web)
        assert "it shows the CA who we are" in server.text
        assert house.client("--server-id", WEB).returncode == 0
        assert server.stop() == 0
    off = house.start_server(*shop, wait=False)
    said = off.wait_for(r"No certificate from the CA at \S+: (.*)")[1]
    assert "unknown-authority" in said, "it has what it believed then"
    assert "mesh-ctl token create" in said
    off.stop()
    healed = joining(house, SHOP, house.fingerprint)
    house.start_server(*healed, *token(house, SHOP))
    assert house.client("--server-id", SHOP).returncode == 0


@pytest.mark.interop("tests/twisted_mesh/workers/test_relay.py::test_what_it_needs_is_asked")
def test_a_parent_and_each_of_its_workers_serve_by_the_new_root(house: House) -> None:
    house.start_ca(*BRIEF)
    server = house.start_server("--workers", "2", "--ttl", "4s", wait=False)
    server.wait_for(READY)
    step(house, "prepare", "--yes")
    step(house, "activate", "--force", "--yes")
    for who in ("SERVER", "SERVER 1", "SERVER 2"):
        server.wait_for(rf"\[{who}\] (New c|C)ertificate issued:\n.*\n  Issuer: .*generation 2,")
    step(house, "retire", "--force", "--yes")
    for who in ("SERVER", "SERVER 1", "SERVER 2"):
        server.wait_for(rf"\[{who}\] Our certificate is served by another way now")
    assert server.stop() == 0
