"""Nothing is certified for a key that is blocked, by whichever door it comes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pki.audit.log import Act, Entry
from pki.errors import Refused
from pki.issuing.csr import build_csr
from pki.keys import MemoryKey, key_id
from pki.keys.algorithm import KeyAlgorithm
from pki.keys.key_list import KeyList
from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from tests.authorities import BACKEND, key
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, ca_rig, result_of, settled
from twisted_mesh.ca.blocked_keys import BadBlockedKeys, read_lists
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.records import Conflict, KeyBlocked, Unknown

#: What :meth:`CaRig.sign` asks for.
PUBLIC = key(9).public_key
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig() as rig:
        yield rig


def refusal(rig: CaRig) -> str:
    with pytest.raises(Refused) as error:
        rig.sign()
    (problem,) = error.value.problems
    assert problem.code == "blocked-key"
    return problem.detail


def log_of(rig: CaRig) -> list[Entry]:
    result_of(rig.ca.log.extend())
    rows, _ = result_of(settled(rig.ca.store.log_entries(0, 100)))
    return [Entry.parse(row.entry) for row in rows]


def test_a_key_is_blocked_and_let_go_by_an_administrator(rig: CaRig) -> None:
    blocked = rig.ca.blocked
    made = result_of(blocked.block(ADMIN, PUBLIC, "found on a wall"))
    assert made.spki == key_id(PUBLIC)
    assert refusal(rig) == (
        "this key was blocked by an administrator at 2026-11-23T10:00:00Z (found on a wall)"
    )
    assert len(blocked) == 1
    result_of(blocked.unblock(ADMIN, made.spki, "a mistake"))
    rig.sign()
    told = [(e.act, e.object, dict(e.facts)) for e in log_of(rig) if e.act is Act.ADMINISTER]
    assert told == [
        (Act.ADMINISTER, f"key {made.spki}", {"did": "block-key", "reason": "found on a wall"}),
        (Act.ADMINISTER, f"key {made.spki}", {"did": "unblock-key", "reason": "a mistake"}),
    ]
    with pytest.raises(Unknown, match="not blocked"):
        result_of(blocked.unblock(ADMIN, made.spki, ""))


def test_a_key_is_blocked_by_its_digest_alone(rig: CaRig) -> None:
    result_of(rig.ca.blocked.block(ADMIN, key_id(PUBLIC), ""))
    assert refusal(rig) == "this key was blocked by an administrator at 2026-11-23T10:00:00Z"


@pytest.mark.parametrize("many", [False, True])
def test_what_is_revoked_as_compromised_blocks_its_key_for_good(rig: CaRig, many: bool) -> None:
    leaf, *_ = rig.sign()
    ca, serial = rig.ca.certificates, leaf.serial_number
    if many:
        result_of(ca.revoke_all(ADMIN, [serial], Reason.KEY_COMPROMISE))
    else:
        result_of(ca.revoke(ADMIN, serial, Reason.KEY_COMPROMISE))
    assert refusal(rig) == (
        f"this key was compromised: its certificate {serial_hex(serial)} was revoked for that at "
        "2026-11-23T10:00:00Z"
    )
    with pytest.raises(Conflict, match="for good"):
        result_of(rig.ca.blocked.unblock(ADMIN, key_id(PUBLIC), "please"))
    (act,) = (e for e in log_of(rig) if e.act is Act.REVOKE)
    assert act.facts["key"] == key_id(PUBLIC)


def test_what_is_revoked_for_another_reason_blocks_nothing(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    rig.sign()


def test_the_other_point_with_that_x_is_the_same_private_half(rig: CaRig) -> None:
    numbers = key(9).private_key.private_numbers()  # type: ignore[union-attr]
    mirrored = ec.derive_private_key(ORDER - numbers.private_value, ec.SECP256R1())
    leaf, *_ = rig.sign()
    result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.KEY_COMPROMISE))
    csr = build_csr(MemoryKey(mirrored, KeyAlgorithm.EC_P256), BACKEND)
    with pytest.raises(Refused, match="a key of the same private half was compromised"):
        result_of(rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None))


def test_the_store_has_the_last_word(rig: CaRig) -> None:
    """Between the look at the request and its record somebody has blocked the key."""
    result_of(rig.ca.blocked.block(ADMIN, PUBLIC, ""))
    rig.ca.blocked._known.clear()
    rig.ca.blocked._by_number.clear()
    with pytest.raises(KeyBlocked, match="blocked meanwhile"):
        rig.sign()


def test_a_key_on_a_list_is_not_certified(rig: CaRig) -> None:
    listed = KeyList.parse("stolen.txt", key_id(PUBLIC).encode())
    assert rig.ca.blocked.replace_lists((listed,)) == "stolen.txt: 1 keys"
    assert refusal(rig) == "this key is on the list stolen.txt"
    assert rig.ca.blocked.replace_lists((listed,)) == ""
    rig.ca.blocked.replace_lists(())
    rig.sign()


def test_lists_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(key_id(PUBLIC))
    bad.write_text("nonsense")
    (found,) = read_lists([str(good)])
    assert (found.name, len(found)) == (str(good), 1)
    with pytest.raises(BadBlockedKeys, match="line 1: 'nonsense'"):
        read_lists([str(good), str(bad)])
    with pytest.raises(StateError, match="cannot be read"):
        read_lists([str(tmp_path / "absent")])
    good.chmod(0o666)
    with pytest.raises(StateError, match="chmod"):
        read_lists([str(good)])
