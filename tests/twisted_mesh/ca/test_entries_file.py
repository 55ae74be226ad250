"""Registration entries from a file: all of them good, or no start."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.policy.entry import RegistrationEntry
from pki.policy.selector import Selector
from tests.authorities import MESH
from twisted_mesh.ca.entries_file import BadEntriesFile, read_entries
from twisted_mesh.state.directory import StateError

GOOD = """
[entries.web]
selectors = ["unix:user:www-data", "unix:gid:33"]
spiffe_id = "spiffe://{trust_domain}/service/web"
dns_names = ["www.example.org"]
ip_addresses = ["192.0.2.1"]
ttl = "10m"
max_ttl = "1h"
keys = ["ec-p256"]
comment = "the shop"

[entries.people]
selectors = ["unix:gid:100"]
spiffe_id = "spiffe://{trust_domain}/user/{unix.user}"
"""


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "entries.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    return path


def test_entries_are_read_with_all_that_they_say(tmp_path: Path) -> None:
    web, people = read_entries(written(tmp_path, GOOD), MESH)
    assert re.fullmatch(r"file\.web\.[0-9a-f]{8}", web.id)
    assert web.selectors == {Selector("unix:user", "www-data"), Selector("unix:gid", "33")}
    assert str(web.spiffe_id) == f"spiffe://{MESH}/service/web"
    assert (web.dns_names, web.keys, web.comment) == (
        ("www.example.org",),
        ("ec-p256",),
        "the shop",
    )
    assert str(people.spiffe_id) == f"spiffe://{MESH}/user/{{unix.user}}"
    assert read_entries(written(tmp_path, ""), MESH) == ()


def test_an_entry_of_the_file_may_count_through_an_agent(tmp_path: Path) -> None:
    def read(more: str) -> RegistrationEntry:
        (entry,) = read_entries(
            written(tmp_path, f"{GOOD.partition('[entries.people]')[0]}{more}"), MESH
        )
        return entry

    one, other = (read(f'parent = "spiffe://{MESH}/mesh/agent/{name}"\n') for name in ("a", "b"))
    hinted = read('hint = "main"\n')
    assert (str(one.parent), hinted.hint) == (f"spiffe://{MESH}/mesh/agent/a", "main")
    # What was bought through one agent is not renewed through another.
    assert len({one.id, other.id, read("").id}) == 3
    assert hinted.id == read("").id
    # Nor does whom it believes besides make it another.
    federated = read('federates_with = ["b.example"]\n')
    assert (federated.id, *map(str, federated.federates_with)) == (hinted.id, "b.example")
    with pytest.raises(BadEntriesFile, match="federates_with: it names other trust domains"):
        read(f'federates_with = ["{MESH}"]\n')
    with pytest.raises(BadEntriesFile, match="parent"):
        read(f'parent = ["spiffe://{MESH}/mesh/agent/a", "spiffe://{MESH}/mesh/agent/b"]\n')
    with pytest.raises(BadEntriesFile, match="it is the ID of an agent"):
        read(f'parent = "spiffe://{MESH}/service/web"\n')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[entries.web", "entries.toml"),
        ("[entry.web]\nselectors = []", "entry"),
        ('[entries.Web]\nselectors = ["unix:uid:1"]\nspiffe_id = "x"', "Web: name"),
        ('[entries.web]\nselectors = ["unix:uid:1"]', "spiffe_id"),
        ('[entries.web]\nselectors = ["unix:uid:1"]\nspiffe_id = "x"\ncolour = 1', "colour"),
        ('[entries.web]\nselectors = "unix:uid:1"\nspiffe_id = "x"', "selectors"),
        ('[entries.web]\nselectors = ["unix:iud:1"]\nspiffe_id = "spiffe://{trust_domain}/a"', "unix:uid"),
        ('[entries.web]\nselectors = ["unix:uid:1"]\nspiffe_id = "spiffe://{trust_domain}/mesh/a"', "mesh"),
        ('[entries.web]\nselectors = []\nspiffe_id = "spiffe://{trust_domain}/a"', "everybody"),
        ("x = " + "[" * 100_000, "entries.toml"),
        (b"\xff", "entries.toml"),
    ],
    ids=[
        "no TOML", "a stray table", "a bad name", "no ID", "a stray member", "no list", "a typing error",
        "a reserved ID", "no selectors", "deep", "no UTF-8",
    ],
)  # fmt: skip
def test_a_file_with_one_bad_entry_is_refused_with_the_entry_and_the_rule(
    text: str | bytes, words: str, tmp_path: Path
) -> None:
    good = GOOD if isinstance(text, str) and text.startswith("[entries.w") and "\n" in text else ""
    source = text if not good else text.replace("entries.web", "entries.bad") + good
    with pytest.raises(BadEntriesFile) as caught:
        read_entries(written(tmp_path, source), MESH)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    bad = '[entries.a]\nselectors = ["x:1"]\nspiffe_id = "nothing"\n[entries.b]\nselectors = []\nspiffe_id = "nothing"'
    with pytest.raises(
        BadEntriesFile, match=r"a: selectors.*a: spiffe_id.*b: selectors.*b: spiffe_id"
    ):
        read_entries(written(tmp_path, bad), MESH)


def test_a_file_that_others_may_change_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.chmod(0o620)
    with pytest.raises(StateError, match="chmod go-w"):
        read_entries(path, MESH)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("unix:gid:33", "unix:gid:34", False),
        ("/service/web", "/service/shop", False),
        ("www.example.org", "shop.example.org", True),
        ('ttl = "10m"', 'ttl = "5m"', True),
    ],
)
def test_an_entry_that_means_somebody_else_is_another_entry(
    old: str, new: str, same: bool, tmp_path: Path
) -> None:
    before, _ = read_entries(written(tmp_path, GOOD), MESH)
    after, _ = read_entries(written(tmp_path, GOOD.replace(old, new, 1)), MESH)
    assert (before.id == after.id) is same


def test_what_is_no_file_is_neither_waited_for_nor_believed(tmp_path: Path) -> None:
    pipe = tmp_path / "entries.toml"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(StateError, match="is no file"):
        read_entries(pipe, MESH)
    with pytest.raises(StateError, match="is no file"):
        read_entries(Path("/dev/zero"), MESH)


def test_a_file_in_a_directory_that_others_may_change_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    path = written(directory, GOOD)
    if os.geteuid() == 0:  # root's own directory is taken for what it is: it needs another owner
        os.chown(directory, 4242, 4242)
    else:
        pytest.skip("only root can have a directory that is another user's")
    with pytest.raises(StateError, match="another user"):
        read_entries(path, MESH)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"--entries .*nowhere"):
        read_entries(tmp_path / "nowhere", MESH)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_file_raises_anything_but_our_own_errors(tmp_path: Path, data: bytes | str) -> None:
    text = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    try:
        read_entries(written(tmp_path, text), MESH)
    except PkiError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"entries": {}}', "it is JSON, and entries are written in TOML"),
        (b"-----BEGIN CERTIFICATE-----\n", "it is PEM, and entries are written in TOML"),
        ("[entries]".encode("utf-16"), "text in UTF-16, as PowerShell"),
    ],
)
def test_what_is_no_toml_is_told_by_what_it_is(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "entries.toml").write_bytes(data)
    with pytest.raises(BadEntriesFile, match=words):
        read_entries(tmp_path / "entries.toml", MESH)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "entries.toml").write_bytes(b"\xef\xbb\xbf[entries]\n")
    assert read_entries(tmp_path / "entries.toml", MESH) == ()


def test_agents_and_aliases_stand_beside_entries(tmp_path: Path) -> None:
    path = tmp_path / "entries.toml"
    path.write_text(
        "[agents.prod]\nagents = 'prod.{k8s_psat.agent_node_name}'\n"
        "selectors = ['k8s_psat:cluster:prod']\nreattest = true\n"
        "[aliases.prod-nodes]\nselectors = ['k8s_psat:cluster:prod']\n"
        "[entries.web]\nparent = 'spiffe://mesh.local/mesh/alias/prod-nodes'\n"
        "selectors = ['unix:uid:7']\nspiffe_id = 'spiffe://mesh.local/service/web'\n"
    )
    path.chmod(0o600)
    web, allowed, alias = read_entries(path, MESH)
    assert (allowed.lets_agents_in, alias.alias) == (True, "prod-nodes")
    assert allowed.id.startswith("file.agents.prod.")
    assert allowed.reattest
    assert web.parent == MESH.member("mesh", "alias", "prod-nodes")


@pytest.mark.parametrize(
    "text",
    [
        "[agents.prod]\nagents = 'prod'\nselectors = ['k8s_psat:cluster:prod']",
        "[agents.prod]\nagents = '{k8s_psat.cluster}'\nselectors = ['token:x']",
        "[agents.prod]\nselectors = ['k8s_psat:cluster:prod']",
        "[aliases.prod]\nselectors = ['k8s_psat:cluster:prod']\nreattest = true",
        "[agents.prod]\nagents = '{k8s_psat.cluster}'\nselectors = []",
        "[aliases.Prod]\nselectors = ['k8s_psat:cluster:prod']",
        "[aliases.prod]\nselectors = ['k8s_psat:cluster:prod']\nspiffe_id = 'x'",
        "[entries.web]\nspiffe_id = 'spiffe://mesh.local/mesh/alias/a'\nselectors = ['unix:uid:7']",
    ],
)
def test_what_is_no_group_of_agents_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "entries.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadEntriesFile):
        read_entries(path, MESH)
