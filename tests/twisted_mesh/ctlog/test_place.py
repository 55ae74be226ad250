"""Where a log's record and files are, as --store says it, and what a log does before there is a CA beside it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import certificates_pem
from tests.authorities import MESH, mesh
from twisted_mesh.ctlog.directory import LogDirectory
from twisted_mesh.ctlog.errors import CtLogStateError
from twisted_mesh.ctlog.place import LogPlace
from twisted_mesh.ctlog.roots import AcceptedRoots
from twisted_mesh.ctlog.submitters import PIN_FILE, AcceptedCa, Submitters

CA = MESH.member("mesh", "ca")
PIN = SpkiHash.of_spki(b"the key by which a CA submits")


@given(st.text(max_size=30) | st.sampled_from(["", "a", "/b/c", "sqlite:///d", "sqlite:////e/f"]))
def test_a_place_is_parsed_and_written_again_or_refused(text: str) -> None:
    try:
        place = LogPlace.parse(text)
    except PkiError:
        return
    assert LogPlace.parse(str(place)) == place


@pytest.mark.parametrize("text", ["sqlite:", "sqlite:///", "sqlite:x.db", "memory:", "https://x/"])
def test_what_is_no_place_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(PkiError, match=r"it is a directory.* or sqlite:///FILE"):
        LogPlace.parse(text)


def test_record_and_files_are_where_the_option_says_and_keys_stay(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    own = LogDirectory(state)
    assert (own.record.parent, own.public) == (own.private, state / "ctlog" / "public")
    big = LogDirectory(state, LogPlace.parse(f"{tmp_path}/big"))
    big.prepare()
    assert (big.record, big.public) == (
        tmp_path / "big" / "private" / "ctlog.db",
        tmp_path / "big" / "public",
    )
    assert big.record.parent.stat().st_mode & 0o777 == 0o700
    alone = LogDirectory(state, LogPlace.parse(f"sqlite:///{tmp_path}/records/log.db"))
    alone.prepare()
    assert alone.record == tmp_path / "records" / "log.db"
    assert alone.record.parent.is_dir()
    assert (big.private, alone.public) == (own.private, own.public)


def test_a_place_that_others_can_change_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    directory = LogDirectory(tmp_path / "state", LogPlace.parse(f"{open_to_all}/log"))
    with pytest.raises(CtLogStateError, match="--store"):
        directory.prepare()


def test_a_ca_that_is_started_later_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    submitters = Submitters([AcceptedCa(CA)], ca / PIN_FILE)
    roots = AcceptedRoots([], ca)
    submitters.look()
    roots.look()
    for problem in (submitters.problem, roots.problem):
        assert problem is not None
        assert "yet" in problem.detail
        assert "without a restart" in problem.remedy
    assert PIN not in submitters
    ca.mkdir()
    (ca / "root.crt").write_bytes(certificates_pem([mesh().root.certificate]))
    (ca / PIN_FILE).write_text(f"{PIN}\n")
    assert PIN in submitters
    assert roots.look()
    assert roots.all() == (mesh().root.certificate,)
    assert (submitters.problem, roots.problem) == (None, None)
