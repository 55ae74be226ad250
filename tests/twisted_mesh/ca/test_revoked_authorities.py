"""The file of revoked CAs: read back as it was written, and anything else refused."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.svid.revocation_set import GIVEN_REASONS, Reason
from tests.authorities import NOW, forge_root, mesh
from twisted_mesh.ca.revoked_authorities import (
    NAME,
    RevokedAuthorities,
    RevokedAuthority,
    merged_rows,
    parse,
    written,
)
from twisted_mesh.state.directory import StateError

ROOT, ISSUING = mesh().root.certificate, mesh().issuing.certificate
PATH = Path(NAME)


def issuing(reason: Reason = Reason.CA_COMPROMISE, by: str = "unix:uid:0") -> RevokedAuthority:
    return RevokedAuthority.of(ISSUING, ROOT, NOW, reason, by)


def root() -> RevokedAuthority:
    return RevokedAuthority.of(ROOT, ROOT, NOW, Reason.KEY_COMPROMISE, "unix:uid:0")


def told(row: RevokedAuthority) -> tuple[object, ...]:
    return row.certificate, row.revocation, row.by


@given(
    st.sampled_from(GIVEN_REASONS),
    st.text(max_size=500),
    st.booleans(),
    st.timedeltas(timedelta(0), timedelta(days=999)),
)
def test_it_is_read_as_it_was_written(
    reason: Reason, by: str, is_root: bool, later: timedelta
) -> None:
    whose = ROOT if is_root else ISSUING
    row = RevokedAuthority.of(whose, ROOT, NOW + later, reason, by)
    try:
        data = written([row])
    except UnicodeEncodeError:
        return  # a lone surrogate is no text, and comes from no proof
    (read,) = parse(data, PATH)
    assert told(read) == told(row)
    assert read.is_root == is_root


def test_what_is_revoked_stays_as_it_was_first(tmp_path: Path) -> None:
    file = RevokedAuthorities(tmp_path / NAME)
    assert file.load() == ()
    file.add([issuing()])
    file.add([issuing(Reason.SUPERSEDED, "somebody else"), root()])
    found = RevokedAuthorities(tmp_path / NAME).load()
    assert [told(row) for row in found] == [told(issuing()), told(root())]
    assert merged_rows(found, found) == found


@given(st.binary(max_size=200))
def test_anything_else_is_damage(data: bytes) -> None:
    with pytest.raises(StateError):
        parse(data, PATH)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("certificate", "no PEM"),
        ("serial", "01"),
        ("issuer", "0" * 63),
        ("issuer", "X" * 64),
        ("revoked_at", "yesterday"),
        ("reason", "boredom"),
        ("by", None),
        ("more", 1),
    ],
)
def test_a_member_that_does_not_fit_is_damage(member: str, value: object) -> None:
    document = msgspec.json.decode(written([issuing()]))
    document["revoked"][0][member] = value
    with pytest.raises(StateError, match="is damaged"):
        parse(msgspec.json.encode(document), PATH)


def test_a_root_is_revoked_by_itself_and_nobody_else_is() -> None:
    for row, issuer in ((root(), issuing().revocation.issuer), (issuing(), root().key_id)):
        document = msgspec.json.decode(written([row]))
        other = forge_root().key_id if row.is_root else row.key_id
        document["revoked"][0]["issuer"] = other
        with pytest.raises(StateError):
            parse(msgspec.json.encode(document), PATH)
        assert issuer


def test_a_later_format_is_told_apart() -> None:
    document = msgspec.json.decode(written([issuing()])) | {"format": 2}
    with pytest.raises(StateError, match="later version"):
        parse(msgspec.json.encode(document), PATH)
