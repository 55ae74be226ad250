"""docs/recipes/envoy-sds.md as its reader has it: a CA, mesh-agent and Envoy, each a process."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.recipes import envoys
from tests.recipes.estate import (
    Estate,
    adapted,
    blocks,
    estate,
    greeting,
    over_rotations,
    seconds_to_refusal,
)
from tests.recipes.test_envoy_sds import UNPATIENT, Envoy
from tests.running import Running, free_port, until

pytestmark = pytest.mark.recipes


AGENT = "spiffe://mesh.local/mesh/agent/here"


@frozen
class Site:
    estate: Estate
    agent: Running
    home: Path
    shop: int

    @property
    def socket(self) -> Path:
        return self.home / "agent" / "workload.sock"

    def start(self, **changes: str) -> Envoy:
        (block,) = blocks("envoy-sds", "yaml")
        port, out = free_port(), free_port()
        places = {"/run/mesh/workload.sock": self.socket, "8443": self.shop}
        ports = {"9443": port, "9080": out}
        envoys.start(self.estate, adapted(block, {**places, **ports, **changes}), port, out)
        return Envoy(port, out)

    def let_in(self, *options: str) -> str:
        """The entry of the recipe, for whoever runs this; its id."""
        (block,) = blocks("envoy-sds", "sh")
        line = adapted(block, {"unix:uid:1000": f"unix:uid:{os.geteuid()}"}).split()
        done = self.estate.mesh.ctl(
            *line[1:], "--parent", AGENT, "--dns", "localhost", "--format", "json", *options
        )
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["id"])

    def shut_out(self, entry: str) -> None:
        done = self.estate.mesh.ctl("entry", "delete", entry, "--yes")
        assert done.returncode == 0, done.stderr


def started(made: Estate, home: Path, *options: str) -> Running:
    """The agent, once it has its entries."""
    agent = made.mesh.twistd(
        *("mesh-agent", "--name", "here", "--state-dir", str(home)),
        *("--ca-url", f"https://localhost:{made.mesh.ca_port}"),
        *("--ca-fingerprint", made.mesh.fingerprint, *options),
    )
    agent.wait_for("entries for the workloads of this machine")
    return agent


def joined(made: Estate, home: Path) -> Running:
    token = made.mesh.ctl("agent", "token", "create", "here", "--format", "json")
    assert token.returncode == 0, token.stderr
    return started(made, home, "--join-token", json.loads(token.stdout)["token"])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    envoys.program()
    with estate() as made:
        home = made.home / "here"
        agent = joined(made, home)
        with greeting(made.identity("shop", "--ttl", "1h")) as shop:
            yield Site(made, agent, home, shop)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_request_fails_over_rotations(site: Site, rotations: int, least: int) -> None:
    entry = site.let_in("--ttl", "6s")
    envoy, shop = site.start(), site.estate.identity("shop", "--ttl", "1h")

    def both_ways() -> int:
        envoy.ask_shop()
        return shop.get(envoy.port)

    until(lambda: envoy.lets_in(shop))
    asked = over_rotations(both_ways, rotations, least)
    print(f"{asked} requests each way over {rotations} rotations")
    site.shut_out(entry)


def test_an_entry_and_a_revocation_reach_envoy(site: Site) -> None:
    shop = site.estate.identity("shop")
    envoy = site.start(**UNPATIENT)
    assert not envoy.lets_in(shop)
    since = time.monotonic()
    entry = site.let_in()
    until(lambda: envoy.lets_in(shop))
    print(f"served {time.monotonic() - since:.2f} s after the entry was asked for")
    took = seconds_to_refusal(lambda: shop.get(envoy.port), site.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    assert envoy.lets_in(site.estate.identity("shop"))
    site.shut_out(entry)


def test_what_envoy_refuses_is_in_the_log_of_the_agent(site: Site) -> None:
    entry = site.let_in()
    site.start(ROOTCA="default", **UNPATIENT)
    said = site.agent.wait_for(
        r"Envoy web \(process \d+\) did not take default, and keeps what it has: .*"
    )
    assert "without trusted CA is insecure" in said[0]
    site.shut_out(entry)


def test_an_agent_that_is_started_anew_is_found_again_and_no_request_fails(site: Site) -> None:
    """Comes last: the agent of all the others is stopped by it."""
    entry = site.let_in()
    envoy, shop = site.start(), site.estate.identity("shop")
    until(lambda: envoy.lets_in(shop))
    before = shop.get(envoy.port)
    assert site.agent.stop() == 0
    assert [shop.get(envoy.port) for _ in range(20)] == [before] * 20
    since = time.monotonic()
    started(site.estate, site.home)
    asked = over_rotations(lambda: shop.get(envoy.port), 1)
    print(
        f"{asked} requests until the new agent's certificate, after {time.monotonic() - since:.2f} s"
    )
    site.shut_out(entry)
