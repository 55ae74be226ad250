"""Who may be the CA at a socket: root, ourselves, whom only root can have given the directory, who is named."""

import os
import pwd
from pathlib import Path

import pytest

from pki.errors import Malformed
from twisted_mesh.api.ca_user import CaUser, ForeignCa

NOBODY, OTHER = 65534, 65533

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """``<state>/ca``, all of it ours."""
    path = tmp_path / "state" / "ca"
    path.mkdir(parents=True)
    return path


def test_a_directory_of_ours_is_for_us_and_root(ca: Path) -> None:
    assert CaUser().at(ca) == {0, os.geteuid()}
    assert CaUser(NOBODY).at(ca.parent / "none") == {0, NOBODY}


@needs_root
def test_whoever_root_gave_the_directory_to_may_be_the_ca(ca: Path) -> None:
    os.chown(ca, NOBODY, -1)
    assert CaUser().at(ca) == {0, NOBODY}
    os.chown(ca.parent, NOBODY, -1)
    assert CaUser().at(ca) == {0, NOBODY}


@needs_root
@pytest.mark.parametrize("mode", [0o1777, 0o1773, 0o777, 0o775])
def test_in_a_directory_that_others_can_write_to_nobody_founds_our_ca(ca: Path, mode: int) -> None:
    os.chown(ca, NOBODY, -1)
    ca.parent.chmod(mode)
    with pytest.raises(ForeignCa, match=r"name its user with --ca-user") as refused:
        CaUser().at(ca)
    assert refused.value.code == "foreign-ca"
    assert str(ca) in str(refused.value)
    assert CaUser(NOBODY).at(ca) == {0, NOBODY}
    with pytest.raises(ForeignCa):
        CaUser(OTHER).at(ca)


@needs_root
def test_what_a_third_user_owns_on_the_way_gives_nobody_a_right(ca: Path) -> None:
    os.chown(ca, NOBODY, -1)
    os.chown(ca.parent, OTHER, -1)
    with pytest.raises(ForeignCa):
        CaUser().at(ca)


@needs_root
def test_a_link_is_looked_at_where_it_leads(ca: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    ca.rmdir()
    theirs = shared / "ca"
    theirs.mkdir()
    os.chown(theirs, NOBODY, -1)
    ca.symlink_to(theirs)
    with pytest.raises(ForeignCa):
        CaUser().at(ca)


def test_a_user_is_named_by_name_or_number() -> None:
    assert CaUser.parse("4711") == CaUser(4711)
    ours = pwd.getpwuid(os.geteuid())
    assert CaUser.parse(ours.pw_name) == CaUser(ours.pw_uid)
    assert CaUser.parse(None) == CaUser()
    for text in ("", "nobody of this name", "4294967295", "-1", "a\0b", "٤"):
        with pytest.raises(Malformed, match=r"--ca-user .* is no user of this machine"):
            CaUser.parse(text)
