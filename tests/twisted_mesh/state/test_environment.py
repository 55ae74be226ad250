"""Where the environment says that state lives; and what it cannot mean is told, with what to do."""

import os
import pwd
from pathlib import Path

import pytest

from twisted_mesh.state.environment import (
    BadEnvironment,
    default_state_dir,
    refuse_misspelt,
    refuse_tildes,
    user_state_dir,
)


def test_the_state_is_where_the_environment_says() -> None:
    assert default_state_dir({"MESH_STATE_DIR": "/m", "XDG_STATE_HOME": "/x"}) == Path("/m")
    assert default_state_dir({"MESH_STATE_DIR": "", "XDG_STATE_HOME": "/x"}) == Path(
        "/x/twisted-mesh"
    )
    assert default_state_dir({"MESH_STATE_DIR": "relative"}) == Path("relative")
    assert default_state_dir({"HOME": "/h"}).name == "twisted-mesh"
    assert user_state_dir({}).is_absolute()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({"HOME": ""}, "HOME is empty", id="an empty HOME"),
        pytest.param({"HOME": "there"}, "HOME is 'there'", id="a relative HOME"),
        pytest.param({"HOME": "~"}, "HOME is '~'", id="a HOME that is a tilde"),
        pytest.param({"MESH_STATE_DIR": "~/mesh"}, r"write \$HOME/mesh", id="a tilde of ours"),
        pytest.param({"MESH_STATE_DIR": "~"}, "no shell", id="a tilde alone"),
        pytest.param({"XDG_STATE_HOME": "~/.local"}, r"\$XDG_STATE_HOME is", id="a tilde of XDG's"),
        pytest.param({"MESH_STATEDIR": "/m", "HOME": "/h"}, "MESH_STATEDIR: if", id="misspelt"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(environ: dict[str, str], words: str) -> None:
    with pytest.raises(BadEnvironment, match=words) as refused:
        default_state_dir(environ)
    assert str(refused.value).isprintable()


def test_a_user_whom_nobody_knows_has_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(BadEnvironment, match=f"nobody here has the uid {os.getuid()}.*--state-dir"):
        user_state_dir({})
    assert default_state_dir({"MESH_STATE_DIR": "/m"}) == Path("/m")


@pytest.mark.parametrize(
    "name",
    [
        *("MESH_STATEDIR", "MESH_STATE", "mesh_state_dir", "MESH_STATE_DIRS", "MESH_SATE_DIR"),
        *("MESHSTATEDIR", "MESH_STATE_DIRECTORY", "MESH-STATE-DIR"),
    ],
)
def test_a_variable_that_is_nearly_ours_is_named(name: str) -> None:
    with pytest.raises(BadEnvironment, match=f"{name}: if it is to be MESH_STATE_DIR"):
        refuse_misspelt([name, "HOME"])


@pytest.mark.parametrize(
    "name",
    [
        *("MESH_STATE_DIR", "MESH_CA_SERVICE_HOST", "MESH_SERVER_PORT_9443_TCP", "MESH_TOKEN"),
        *("STATE_DIR", "STATE_DIRECTORY", "XDG_STATE_HOME", "MESH_REAL_PROCESSES", "MESH_STATUS"),
    ],
)
def test_a_variable_of_somebody_elses_is_left_alone(name: str) -> None:
    refuse_misspelt([name])


@pytest.mark.parametrize("word", ["--state-dir=~/x", "--crl=~/x", "~/svid.pem"])
def test_a_tilde_on_the_command_line_is_named(word: str) -> None:
    with pytest.raises(BadEnvironment, match="no shell has put in a home"):
        refuse_tildes(["--x", word])


def test_other_tildes_are_left_alone() -> None:
    refuse_tildes(["--reason=~ten of them", "a~/b", "./~/x", "--pattern=x~/"])
