"""Which logs a CA shows its certificates to, as its options and the log beside it say it."""

from pathlib import Path

import pytest

from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList
from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from tests.authorities import NOW, key
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.ct_log_options import AskedLogs

URL = "https://localhost:6962/"


def log(name: str, url: str) -> Log:
    return Log(name, LogKey.of(key(name, KeyAlgorithm.EC_P256).public_key), url, url)


def asked(state: Path, *words: str) -> AskedLogs:
    options = Options()
    options.parseOptions(["--state-dir", str(state), *words])
    found: AskedLogs = options["logs"]
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "ctlog").mkdir()
    listed = LogList((log("the log beside us", URL),), NOW)
    (tmp_path / "ctlog" / "log-list.json").write_bytes(listed.to_bytes())
    return tmp_path


@pytest.mark.parametrize("url", [URL, "https://localhost:6962"])
def test_a_log_in_the_same_state_directory_is_known_by_its_url_alone(state: Path, url: str) -> None:
    assert asked(state, "--ct-log", url).read(NOW) == (log("the log beside us", URL),)


def test_one_beside_us_is_shown_nothing_unless_it_is_named(state: Path) -> None:
    assert not asked(state)


@pytest.mark.parametrize("is_there", [True, False])
def test_one_that_nobody_knows_is_refused_with_those_that_are_known(
    state: Path, is_there: bool
) -> None:
    if not is_there:
        (state / "ctlog" / "log-list.json").unlink()
    known = URL if is_there else "none"
    with pytest.raises(PkiError, match=rf"known are: {known}\): start it first"):
        asked(state, "--ct-log", "https://localhost:6963/").read(NOW)


def test_a_list_that_is_named_is_the_only_one(state: Path) -> None:
    other = log("another", "https://another.example/")
    (state / "logs.json").write_bytes(LogList((other,), NOW).to_bytes())
    file = ("--ct-logs", str(state / "logs.json"))
    assert asked(state, *file).read(NOW) == (other,)
    with pytest.raises(PkiError, match="is not known"):
        asked(state, *file, "--ct-log", URL).read(NOW)
