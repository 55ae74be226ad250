"""docs/recipes/haproxy.md, with the real HAProxy before a service without TLS."""

import ssl
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
    greeting,
    is_open,
    over_rotations,
    seconds_to_refusal,
)
from tests.running import free_port, until
from tests.tools import require_tool

pytestmark = pytest.mark.recipes


@frozen
class Proxy:
    estate: Estate
    port: int


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    program = require_tool("haproxy")
    with estate() as made, greeting() as behind:
        port, files, pid = free_port(), made.home / "web", made.home / "haproxy.pid"
        (config,) = blocks("haproxy", "haproxy")
        here = {
            "/run/haproxy/admin.sock": made.home / "admin.sock",
            "/etc/haproxy/mesh": files,
            "127.0.0.1:9443": f"127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{behind}",
        }
        (made.home / "haproxy.cfg").write_text(adapted(config, here))
        (told,) = blocks("haproxy", "sh")
        assert "ln -sf svid_key.pem /etc/haproxy/mesh/svid.pem.key" in told
        assert "--on-update-signal USR2:/run/haproxy.pid" in told
        files.mkdir()
        (files / "svid.pem.key").symlink_to("svid_key.pem")
        made.agent(files, "web", "--ttl", "6s", "--on-update-signal", f"USR2:{pid}")
        made.start(program, "-W", "-f", made.home / "haproxy.cfg", "-p", pid)
        until(lambda: is_open(port))
        yield Proxy(made, port)


def test_it_serves_who_is_allowed_and_nobody_else(proxy: Proxy) -> None:
    shop = proxy.estate.identity("shop")
    assert shop.get(proxy.port)
    with pytest.raises(REFUSED):
        proxy.estate.identity("other").get(proxy.port)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_request_fails_over_rotations_of_both(proxy: Proxy, rotations: int, least: int) -> None:
    directory = proxy.estate.home / "rotating"
    agent = proxy.estate.agent(directory, "shop", "--ttl", "6s")
    shop = Identity(directory)
    asked = over_rotations(lambda: shop.get(proxy.port), rotations, least)
    print(f"{asked} requests over {rotations} rotations")
    assert agent.stop() == 0


def test_who_is_revoked_is_refused_by_that_alert(proxy: Proxy) -> None:
    shop = proxy.estate.identity("shop")
    assert shop.get(proxy.port)
    took = seconds_to_refusal(lambda: shop.get(proxy.port), proxy.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.revoked"):
        shop.get(proxy.port)
    assert proxy.estate.identity("shop").get(proxy.port)
