"""docs/recipes/curl.md, with the real curl, against a server of ours."""

from collections.abc import Iterator

import pytest

from tests.recipes.estate import Estate, adapted, blocks, estate, greeting, run_shell
from tests.tools import require_tool

pytestmark = pytest.mark.recipes


@pytest.fixture(scope="module")
def made() -> Iterator[Estate]:
    require_tool("curl")
    with estate() as running:
        running.mesh.start_server("--ttl", "60s")
        yield running


def script(made: Estate, directory: str) -> str:
    (block,) = blocks("curl", "sh")
    here = {"/srv/shop/mesh": made.home / directory, "9443": made.mesh.port}
    return adapted(block, here)


def test_it_is_answered_over_rotations(made: Estate) -> None:
    agent = made.agent(made.home / "shop", "shop", "--ttl", "6s")
    asks, seen = script(made, "shop"), 1
    while seen < 4:
        assert '"caller":"spiffe://mesh.local/service/shop"' in run_shell(asks).replace(" ", "")
        seen = agent.text.count("are new: svid")
    assert agent.stop() == 0


def test_a_server_that_is_revoked_is_refused(made: Estate) -> None:
    server = made.identity("api-server")
    agent = made.agent(made.home / "careful", "shop")
    with greeting(server) as port:
        (block,) = blocks("curl", "sh")
        asks = adapted(block, {"/srv/shop/mesh": made.home / "careful", "9443": port})
        assert run_shell(asks) == "hello"
        made.revoke(server)
        agent.wait_for(r"are new: crl")
        with pytest.raises(PermissionError, match="certificate revoked"):
            run_shell(asks)
    assert agent.stop() == 0
