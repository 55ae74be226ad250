"""The document of the roots says what it was told, and nothing else than a signed one is believed."""

from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.issuing.authority import Authority
from pki.issuing.root_line import FormerRoot, HowItEnded, Phase, RootLine
from tests.authorities import MESH, NOW, key, mesh
from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.ca.issuing_files import WrongState
from twisted_mesh.ca.root_document import is_signed, line_of, read, read_line, signed

HOME = mesh()
NEW = result_of(Authority.create_root(key("new root"), MESH, NOW, 2))
BOTH = (
    HOME.issuing.certificate,
    result_of(NEW.create_issuing(HOME.issuing.key, MESH, NOW)).certificate,
)
WHERE = Path("roots.json")
TEXTS = st.text(max_size=80).filter(str.isprintable)
FORMER = st.builds(
    FormerRoot,
    fingerprint=TEXTS,
    key_id=TEXTS,
    pin=TEXTS,
    subject=TEXTS,
    generation=st.integers(0, 10**8),
    at=st.integers(0, 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds)),
    how=st.sampled_from(HowItEnded),
)
LINES = st.builds(
    RootLine,
    old=st.just(HOME.root.certificate),
    new=st.just(NEW.certificate),
    phase=st.sampled_from([Phase.PREPARED, Phase.ACTIVATED, Phase.SWITCHED]),
    sequence=st.integers(0, 2**53),
    since=st.just(NOW),
    both=st.sampled_from([(), BOTH]),
    replaced=TEXTS,
    announced=TEXTS,
    former=st.lists(FORMER, max_size=3).map(tuple),
)


def document(line: RootLine) -> bytes:
    found: bytes = result_of(signed(line, HOME.issuing))
    return found


#: Once: a signature is another each time, and so is its length.
WRITTEN = document(RootLine(HOME.root.certificate, sequence=7))


@given(LINES)
def test_what_is_written_is_read_back(line: RootLine) -> None:
    assert read_line(document(line), WHERE, [HOME.issuing.certificate]) == line
    settled = evolve(line, new=None, phase=Phase.SETTLED)
    assert line_of(read(document(settled), WHERE), WHERE) == settled


@given(st.binary(max_size=400))
def test_other_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(WrongState, match=r"roots\.json"):
        line_of(read(data, WHERE), WHERE)


@given(st.data())
def test_a_byte_that_is_changed_breaks_it(data: st.DataObject) -> None:
    written = bytearray(WRITTEN)
    at = data.draw(st.integers(0, len(written) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != written[at]))
    before = read_line(bytes(written), WHERE, [HOME.issuing.certificate])
    written[at] = byte
    try:
        after = read_line(bytes(written), WHERE, [HOME.issuing.certificate])
    except WrongState:
        return
    assert after == before, "only what says nothing: blanks, a digit of base64 that is not used"


def test_nobody_elses_signature_will_do() -> None:
    other = mesh(issuing_key=key("a stranger")).issuing.certificate
    written = read(document(RootLine(HOME.root.certificate)), WHERE)
    assert is_signed(written, [other, HOME.issuing.certificate])
    assert not is_signed(written, [other, HOME.root.certificate])
    assert not is_signed(written, [])
