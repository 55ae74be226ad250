"""Directories of our own: who else could write there, or has put it there, is found before anything is believed."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pki.audit.log import LogKey
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers, crl_numbers_path
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.private import (
    make_private_in_state,
    read_private,
    refuse_open,
    refuse_swappable,
)
from twisted_mesh.trust.log_witness import LogWitness, witness_path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
NOBODY = 65534


def of_another(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, -1)


def a_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


PREPARED = [pytest.param(of_another, marks=needs_root), a_link, open_to_others]


@pytest.mark.parametrize("prepare", PREPARED)
@pytest.mark.parametrize("name", ["witness", "crls"])
def test_what_somebody_else_has_prepared_is_neither_believed_nor_written_to(
    name: str, prepare: Callable[[Path], None], tmp_path: Path
) -> None:
    place = tmp_path / name
    prepare(place)
    who = "unix:/x spiffe://mesh.local/service/a"
    if name == "witness":
        key = LogKey.generate("mesh.local/audit/test")
        witness = LogWitness(witness_path(tmp_path, who))
        witness.verifier, witness._note = key.verifier, "a note"
        assert witness.path is not None
        witness.path.write_text('{"verifier": "x", "note": "y"}')
        witness.remember()
        again = LogWitness(witness.path)
        again.recall()
        assert again.seen is None
        assert witness.path.read_text() == '{"verifier": "x", "note": "y"}'
    else:
        path = crl_numbers_path(tmp_path, who)
        path.write_text('{"source": {"issuer": "ff"}}')
        numbers = SeenCrlNumbers(path)
        numbers.recall()
        assert numbers.seen("source") == {}
        numbers.remember("source", {"issuer": 1})
        assert path.read_text() == '{"source": {"issuer": "ff"}}'
        assert numbers.seen("source") == {"issuer": 1}
    with pytest.raises(StateError):
        refuse_open(place)


def test_a_place_of_our_own_is_made_and_used(tmp_path: Path) -> None:
    make_private_in_state(tmp_path / "witness")
    assert (tmp_path / "witness").stat().st_mode & 0o777 == 0o700
    numbers = SeenCrlNumbers(crl_numbers_path(tmp_path, "who"))
    numbers.remember("source", {"issuer": 255})
    again = SeenCrlNumbers(numbers.path)
    again.recall()
    assert again.seen("source") == {"issuer": 255}


def test_the_state_directory_is_made_too_and_lets_others_through(tmp_path: Path) -> None:
    state = tmp_path / "of" / "who" / "asks"
    make_private_in_state(state / "witness")
    assert stat.S_IMODE(state.stat().st_mode) & 0o066 == 0
    assert stat.S_IMODE((state / "witness").stat().st_mode) == 0o700


def test_a_file_is_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of somebody")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(StateError, match=r"link cannot be read"):
        read_private(tmp_path / "link")
    assert read_private(tmp_path / "file") == b"of somebody"


def test_in_a_sticky_directory_nobody_takes_our_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    refuse_swappable(tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(StateError, match=r"can be changed by others"):
        refuse_swappable(tmp_path)


@needs_root
def test_in_another_users_directory_or_below_it_somebody_may(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    os.chown(tmp_path, NOBODY, -1)
    for path in (tmp_path, below):
        with pytest.raises(StateError, match=r"another user"):
            refuse_swappable(path)
