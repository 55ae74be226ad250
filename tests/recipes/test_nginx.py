"""docs/recipes/nginx.md, with the real nginx."""

from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.recipes.estate import (
    REFUSED,
    Estate,
    Identity,
    adapted,
    blocks,
    estate,
    is_open,
    over_rotations,
    probed,
    seconds_to_refusal,
)
from tests.running import free_port, until
from tests.tools import require_tool

pytestmark = pytest.mark.recipes


@frozen
class Nginx:
    estate: Estate
    port: int


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    program = require_tool("nginx")
    with estate() as made:
        port, files = free_port(), made.home / "web"
        pid = made.home / "nginx.pid"
        (server,) = blocks("nginx", "nginx")
        here = {"/etc/nginx/mesh": files, "9443": f"127.0.0.1:{port}"}
        config = made.home / "nginx.conf"
        temporary = "\n".join(
            f"{kind}_temp_path {made.home}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"daemon off; worker_processes 2; pid {pid}; error_log {made.home}/error.log;\n"
            f"events {{ }}\nhttp {{ access_log off; {temporary}\n{adapted(server, here)}\n}}\n"
        )
        (told,) = blocks("nginx", "sh")
        assert "--on-update-signal HUP:/run/nginx.pid" in told
        made.agent(files, "web", "--ttl", "6s", "--on-update-signal", f"HUP:{pid}")
        made.start(program, "-c", config, "-e", made.home / "error.log")
        until(lambda: is_open(port))
        yield Nginx(made, port)


def test_it_serves_who_is_allowed_and_nobody_else(nginx: Nginx) -> None:
    shop = nginx.estate.identity("shop")
    assert shop.get(nginx.port)
    other = nginx.estate.identity("other")
    with pytest.raises(PermissionError, match="403"):
        other.get(nginx.port)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_request_fails_over_rotations_of_both(nginx: Nginx, rotations: int, least: int) -> None:
    directory = nginx.estate.home / "rotating"
    agent = nginx.estate.agent(directory, "shop", "--ttl", "6s")
    shop = Identity(directory)
    asked = over_rotations(lambda: shop.get(nginx.port), rotations, least)
    print(f"{asked} requests over {rotations} rotations")
    assert agent.stop() == 0


def test_who_is_revoked_is_refused_at_its_reload(nginx: Nginx) -> None:
    shop = nginx.estate.identity("shop")
    assert shop.get(nginx.port)
    took = seconds_to_refusal(lambda: shop.get(nginx.port), nginx.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    with pytest.raises(REFUSED):
        shop.get(nginx.port)
    assert nginx.estate.identity("shop").get(nginx.port)  # another certificate of the same workload


def test_probe_is_let_in_and_told_that_a_certificate_is_wanted(nginx: Nginx) -> None:
    shop = nginx.estate.identity("shop")
    seen, status = probed(nginx.port, "--svid", shop.directory)
    assert (status, seen["verdict"]) == (0, "valid")
    # nginx says no goodbye; and whom it refuses it tells by HTTP.
    assert seen["client_certificate"]["asked_for"] is True
    assert seen["client_certificate"]["answer"] in {"accepted", "no-objection"}
