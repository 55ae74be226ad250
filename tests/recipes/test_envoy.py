"""docs/recipes/envoy.md, with the real Envoy."""

from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.recipes import envoys
from tests.recipes.estate import (
    REFUSED,
    Estate,
    Identity,
    adapted,
    blocks,
    estate,
    over_rotations,
    seconds_to_refusal,
)
from tests.running import free_port

pytestmark = pytest.mark.recipes


@frozen
class Envoy:
    estate: Estate
    port: int


@pytest.fixture(scope="module")
def envoy() -> Iterator[Envoy]:
    envoys.program()
    with estate() as made:
        port, files = free_port(), made.home / "web"
        identity, peers, listener = blocks("envoy", "yaml")
        here = {"/etc/envoy/mesh": files}
        (made.home / "identity.yaml").write_text(adapted(identity, here))
        (made.home / "peers.yaml").write_text(adapted(peers, here))
        places = {"/etc/envoy": made.home, "9443": port}
        made.agent(files, "web", "--ttl", "6s")
        envoys.start(made, adapted(listener, places), port)
        yield Envoy(made, port)


def test_it_serves_who_is_allowed_and_nobody_else(envoy: Envoy) -> None:
    shop = envoy.estate.identity("shop")
    assert shop.get(envoy.port)
    with pytest.raises(REFUSED):
        envoy.estate.identity("other").get(envoy.port)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_request_fails_over_rotations_of_both(envoy: Envoy, rotations: int, least: int) -> None:
    directory = envoy.estate.home / "rotating"
    agent = envoy.estate.agent(directory, "shop", "--ttl", "6s")
    shop = Identity(directory)
    asked = over_rotations(lambda: shop.get(envoy.port), rotations, least)
    print(f"{asked} requests over {rotations} rotations")
    assert agent.stop() == 0


def test_who_is_revoked_is_refused_once_the_files_say_so(envoy: Envoy) -> None:
    shop = envoy.estate.identity("shop")
    assert shop.get(envoy.port)
    took = seconds_to_refusal(lambda: shop.get(envoy.port), envoy.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    assert envoy.estate.identity("shop").get(envoy.port)
