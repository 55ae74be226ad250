"""docs/recipes/postgresql.md, with the real PostgreSQL and psql."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.recipes.estate import (
    Estate,
    Identity,
    adapted,
    blocks,
    estate,
    is_open,
    probed,
    run_shell,
    seconds_to_refusal,
)
from tests.recipes.pages import need
from tests.recipes.pages import program as page_program
from tests.recipes.postgres import POSTGRES, as_postgres, become, needs_root, program
from tests.running import PATIENCE, free_port, until
from tests.tools import require_tool

pytestmark = [pytest.mark.recipes, needs_root]


@frozen
class Postgres:
    estate: Estate
    port: int
    data: Path

    def script(self, directory: Path) -> str:
        """What psql is asked, as the recipe says it."""
        (_, block) = blocks("postgresql", "sh")
        return adapted(block, {"/srv/shop/mesh": directory, "port=5432": f"port={self.port}"})

    def ask(self, directory: Path) -> str:
        return run_shell(self.script(directory)).strip()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    initdb, server = program("initdb"), program("postgres")
    require_tool("psql")
    with estate() as made:
        port, home = free_port(), made.home / POSTGRES
        files, data = home / "mesh", home / "data"
        home.mkdir()
        shutil.chown(home, POSTGRES, POSTGRES)
        as_postgres(initdb, "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", cwd=home)
        (settings,), (rule,), (line,) = (
            blocks("postgresql", language) for language in ("ini", "hba", "ident")
        )
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(adapted(settings, {"/var/lib/postgresql/mesh": files}))
            conf.write(
                f"port = {port}\nlisten_addresses = '127.0.0.1'\nfsync = off\n"
                f"unix_socket_directories = '{home}'\n"
            )
        (data / "pg_hba.conf").write_text(f"local all all trust\n{rule}")
        (data / "pg_ident.conf").write_text(line)
        state = made.home / f"state-{POSTGRES}"
        state.mkdir()
        shutil.chown(state, POSTGRES, POSTGRES)
        entry = ("--selector", "unix:user:postgres", "--spiffe-id")
        created = made.mesh.ctl("entry", "create", *entry, "spiffe://mesh.local/service/database")
        assert created.returncode == 0, created.stderr
        (told, _) = blocks("postgresql", "sh")
        assert "--on-update-signal HUP:/var/lib/postgresql/15/main/postmaster.pid" in told
        option = f"HUP:{data / 'postmaster.pid'}"
        made.agent(files, "database", "--ttl", "6s", "--on-update-signal", option, user=POSTGRES)
        made.start(*become(), server, "-D", data)
        until(lambda: is_open(port))
        psql = ["psql", "-h", home, "-p", port, "-U", "postgres", "-qc", "create role app login"]
        done = subprocess.run(list(map(str, psql)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        yield Postgres(made, port, data)


def test_the_map_says_who_is_which_role(postgres: Postgres) -> None:
    shop, other = postgres.estate.identity("shop"), postgres.estate.identity("other")
    assert postgres.ask(shop.directory) == "1"
    with pytest.raises(PermissionError, match="certificate authentication failed"):
        postgres.ask(other.directory)


def test_a_client_without_a_certificate_is_refused(postgres: Postgres) -> None:
    shop = postgres.estate.identity("shop")
    script = postgres.script(shop.directory).replace("$home/svid.pem", "/nowhere")
    with pytest.raises(PermissionError, match="requires a valid client certificate"):
        run_shell(script)


def test_another_workload_with_the_same_last_segment_is_that_role_too(postgres: Postgres) -> None:
    # What the recipe warns of: the common name is not unique.
    made = postgres.estate
    entry = ("--selector", "unix:uid:0", "--spiffe-id", "spiffe://mesh.local/test/shop")
    assert made.mesh.ctl("entry", "create", *entry).returncode == 0
    directory = made.home / "of-test"
    done = made.mesh.start_agent(directory, "--spiffe-id", "spiffe://mesh.local/test/shop")
    assert done.stop() == 0
    assert postgres.ask(directory) == "1"


def test_an_entrys_common_name_is_a_name_of_its_own(postgres: Postgres) -> None:
    made = postgres.estate
    named = "spiffe://mesh.local/named/shop"
    entry = ("--selector", "unix:uid:0", "--spiffe-id", named, "--common-name", "shop-elsewhere")
    created = made.mesh.ctl("entry", "create", *entry)
    assert created.returncode == 0, created.stderr
    directory = made.home / "of-named"
    assert made.mesh.start_agent(directory, "--spiffe-id", named).stop() == 0
    with pytest.raises(PermissionError, match="certificate authentication failed"):
        postgres.ask(directory)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 20), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_connection_fails_over_rotations_of_both(
    postgres: Postgres, rotations: int, least: int
) -> None:
    made = postgres.estate
    directory = made.home / "rotating"
    agent = made.agent(directory, "shop", "--ttl", "6s")
    files = Identity(postgres.data.parent / "mesh")
    seen, asked = {files.serial}, 0
    while len(seen) <= rotations or asked < least:
        assert postgres.ask(directory) == "1"
        seen.add(files.serial)
        asked += 1
    print(f"{asked} connections over {rotations} rotations")
    assert agent.stop() == 0


def test_who_is_revoked_is_refused_at_its_reload(postgres: Postgres) -> None:
    shop = postgres.estate.identity("shop")
    assert postgres.ask(shop.directory) == "1"
    took = seconds_to_refusal(lambda: postgres.ask(shop.directory), postgres.estate.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    with pytest.raises(PermissionError, match="certificate revoked"):
        postgres.ask(shop.directory)
    assert took < PATIENCE
    assert postgres.ask(postgres.estate.identity("shop").directory) == "1"


def test_psycopg_goes_by_the_same_files(postgres: Postgres) -> None:
    need("psycopg")
    made = postgres.estate
    script = made.home / "psycopg-client.py"

    def ask(identity: Identity) -> str:
        text = page_program("psycopg.md", "client", postgres.port)
        script.write_text(adapted(text, {"/srv/shop/mesh": identity.directory}))
        return run_shell(f"exec {sys.executable} {script}")

    shop = made.identity("shop")
    assert "'app'" in ask(shop)
    with pytest.raises(PermissionError, match="certificate authentication failed"):
        ask(made.identity("other"))
    took = seconds_to_refusal(lambda: ask(shop), made.revoke(shop))
    print(f"refused {took:.2f} s after the revocation")
    with pytest.raises(PermissionError, match="certificate revoked"):
        ask(shop)


def test_probe_asks_for_tls_as_psql_does(postgres: Postgres) -> None:
    shop = postgres.estate.identity("shop")
    seen, status = probed(postgres.port, "--svid", shop.directory, "--starttls", "postgres")
    assert (status, seen["verdict"]) == (0, "valid")
    assert seen["client_certificate"]["asked_for"] is True
    assert seen["client_certificate"]["answer"] != "refused"
