"""docs/recipes/redis.md, with the real Redis, and with HAProxy before it."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.recipes.estate import (
    Estate,
    Identity,
    adapted,
    blocks,
    estate,
    is_open,
    over_rotations,
    seconds_to_refusal,
)
from tests.running import free_port, until
from tests.tools import require_tool

pytestmark = pytest.mark.recipes


@frozen
class Redis:
    estate: Estate
    port: int
    """Of Redis itself."""
    guarded: int
    """Of HAProxy before it."""


def ping(identity: Identity, port: int) -> int:
    """The serial of who answers."""
    answer, serial = identity.talk(port, b"PING\r\n", b"\r\n")
    assert answer == b"+PONG\r\n"
    return serial


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    program, proxy = require_tool("redis-server"), require_tool("haproxy")
    with estate() as made:
        port, guarded, files = free_port(), free_port(), made.home / "cache"
        local = made.home / "redis.sock"
        (config,) = blocks("redis", "redis")
        here = {"6380": port, "/etc/redis/mesh": files, "/run/redis/redis.sock": local}
        (made.home / "redis.conf").write_text(
            adapted(config, here) + f'bind 127.0.0.1\ndir {made.home}\nsave ""\n'
        )
        (told,) = blocks("redis", "sh")
        command = re.search(r'--on-update "([^"]+)"', told)
        assert command is not None
        update = adapted(command[1], {"/etc/redis/mesh": files, "/run/redis/redis.sock": local})
        made.agent(files, "cache", "--ttl", "6s", "--on-update", update)
        made.start(program, made.home / "redis.conf")
        until(lambda: is_open(port))
        (front,), (back,) = blocks("haproxy", "haproxy"), blocks("redis", "haproxy")
        front = front.partition("\nbackend service\n")[0] + "\n"
        pid = made.home / "haproxy.pid"
        here = {
            "/run/haproxy/admin.sock": made.home / "admin.sock",
            "/etc/haproxy/mesh": made.home / "front",
            "127.0.0.1:9443": f"127.0.0.1:{guarded}",
        }
        (made.home / "haproxy.cfg").write_text(
            adapted(front, here) + adapted(back, {"/run/redis/redis.sock": local})
        )
        (made.home / "front").mkdir()
        (made.home / "front" / "svid.pem.key").symlink_to("svid_key.pem")
        made.agent(made.home / "front", "cache", "--on-update-signal", f"USR2:{pid}")
        made.start(proxy, "-W", "-f", made.home / "haproxy.cfg", "-p", pid)
        until(lambda: is_open(guarded), (made.home / "programs.log").read_text)
        yield Redis(made, port, guarded)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_command_fails_over_rotations_of_both(redis: Redis, rotations: int, least: int) -> None:
    directory = redis.estate.home / "rotating"
    agent = redis.estate.agent(directory, "shop", "--ttl", "6s")
    shop = Identity(directory)
    asked = over_rotations(lambda: ping(shop, redis.port), rotations, least)
    print(f"{asked} requests over {rotations} rotations")
    assert agent.stop() == 0


def test_a_connection_outlives_a_rotation(redis: Redis) -> None:
    shop = redis.estate.identity("shop")
    with shop.connected(redis.port) as connection:
        over_rotations(lambda: ping(shop, redis.port), 1)
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"


def test_redis_lets_the_revoked_in_and_haproxy_before_it_does_not(redis: Redis) -> None:
    shop = redis.estate.identity("shop")
    assert ping(shop, redis.guarded)
    took = seconds_to_refusal(lambda: ping(shop, redis.guarded), redis.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    assert ping(shop, redis.port)  # what the recipe says that remains


def test_the_tools_of_the_recipe_are_those_that_run(redis: Redis) -> None:
    done = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"v=(\d+)", done.stdout)
    assert version is not None
    assert int(version[1]) >= 7  # from then on several names are set at once
