"""What is shown against a log: proved to anybody who knows its key, and nothing against a log that is honest."""

import json
from collections.abc import Callable

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from pki.ct.errors import EntryMissing, LogForked, LogRolledBack
from pki.ct.evidence import (
    Evidence,
    MissingEntry,
    RolledBack,
    SplitView,
    Unproven,
    parse_evidence,
)
from pki.ct.log_list import LogList
from pki.ct.precertificate import with_poison
from pki.errors import PkiError
from pki.tlog.merkle import consistency_proof, inclusion_proof, leaf_hash
from tests.authorities import NOW, mesh
from tests.pki.ct.logs import (
    LOGS,
    NOW_MS,
    ONE,
    THREE,
    TWO,
    Tree,
    entry_of,
    leaf_hashes,
    logged,
)
from tests.pki.ct.test_precertificate import signed
from tests.pki.strategies import json_values, mutated

LEAF = mesh().leaf()
SCT = ONE.sct(entry_of(LEAF), index=7)
FINAL = logged(LEAF, SCT).public_bytes(Encoding.DER)
ISSUER = mesh().issuing.certificate.public_bytes(Encoding.DER)
PROMISED = leaf_hash(
    b"\0\0" + NOW_MS.to_bytes(8, "big") + entry_of(LEAF).to_bytes() + b"\0\x08" + SCT.extensions
)
#: A tree without the entry, one with it, and one that goes another way after 5 leaves.
WITHOUT = Tree().add(leaf_hashes(20))
WITH = Tree().add([*leaf_hashes(7), PROMISED, *leaf_hashes(12)])
OTHER = Tree().add([*leaf_hashes(5), *leaf_hashes(15, 100)])
LATE = NOW_MS + 61_000


def missing(tree: Tree = WITHOUT, at: int = LATE) -> MissingEntry:
    found = list(leaf_hashes(20))[7] if tree is WITHOUT else PROMISED
    proof = inclusion_proof(7, tree.size, tree.read)
    return MissingEntry(FINAL, ISSUER, SCT, ONE.head(tree.size, tree.root(), at), found, proof)


def too_short(at: int = LATE) -> MissingEntry:
    return MissingEntry(FINAL, ISSUER, SCT, ONE.head(5, WITHOUT.root(5), at))


def split(first: int, tree: Tree = OTHER) -> SplitView:
    """A head of the honest tree, and the other's."""
    return SplitView(
        ONE.head(first, WITHOUT.root(first)),
        ONE.head(tree.size, tree.root(), LATE),
        tree.root(first),
        consistency_proof(first, tree.size, tree.read),
    )


def back(first: int = 20, second: int = 5, at: int = LATE) -> RolledBack:
    return RolledBack(
        ONE.head(first, WITHOUT.root(first)), ONE.head(second, WITHOUT.root(second), at)
    )


PROOFS: dict[str, tuple[Evidence, type[PkiError], str]] = {
    "another leaf": (missing(), EntryMissing, "has another entry there"),
    "a tree too short": (too_short(), EntryMissing, "does not reach there"),
    "split, of two sizes": (split(8), LogForked, "other entries among its first 8"),
    "split, of a power of two less": (split(16), LogForked, "other entries among its first 16"),
    "split, of one size": (split(20), LogForked, "other entries among its first 20"),
    "rolled back": (back(), LogRolledBack, "a tree of 20 entries"),
}


@pytest.mark.parametrize(("evidence", "kind", "told"), PROOFS.values(), ids=PROOFS)
def test_it_is_proved_and_read_back(evidence: Evidence, kind: type[PkiError], told: str) -> None:
    again = parse_evidence(evidence.to_bytes())
    assert again == evidence
    found = again.verify(LOGS)
    assert type(found) is kind and told in str(found)
    assert again.origin == ONE.log.origin
    assert found.code in (Code.CT_ENTRY_MISSING, Code.CT_LOG_FORKED, Code.CT_LOG_ROLLED_BACK)


NOTHING: dict[str, tuple[Callable[[], Evidence], str]] = {
    "the entry is there": (lambda: missing(WITH), "the entry is there"),
    "a leaf that is not there": (lambda: evolve(missing(), found=bytes(32)), "is not shown"),
    "a proof of elsewhere": (
        lambda: evolve(missing(), proof=inclusion_proof(6, 20, WITHOUT.read)),
        "is not shown",
    ),
    "no proof": (lambda: evolve(missing(), proof=()), "is not shown"),
    "a leaf of no size": (lambda: evolve(missing(), found=b"x"), "is not shown"),
    "a tree that had time left": (lambda: too_short(LATE - 2000), "before entry 7 had to be in it"),
    "a proof of a tree too short": (
        lambda: evolve(too_short(), found=bytes(32)),
        "had to be in it",
    ),
    "a receipt for another": (
        lambda: evolve(missing(), sct=ONE.sct(entry_of(mesh().leaf()), index=7)),
        "for something else",
    ),
    "another log's receipt": (
        lambda: evolve(missing(), sct=TWO.sct(entry_of(LEAF))),
        "another log's",
    ),
    "another log's tree": (
        lambda: evolve(missing(), checkpoint=TWO.head(20, WITHOUT.root(), LATE)),
        "another log's",
    ),
    "an issuer that is none": (lambda: evolve(missing(), issuer=b"x"), "cannot be read"),
    "two that agree": (lambda: split(4), "the two trees agree"),
    "of one tree": (lambda: split(8, WITHOUT), "the two trees agree"),
    "a root of nothing": (lambda: evolve(split(8), prefix=bytes(32)), "is not shown"),
    "without the proof": (lambda: evolve(split(8), proof=()), "is not shown"),
    "the larger one first": (
        lambda: evolve(split(8), first=split(8).second, second=split(8).first),
        "the larger one",
    ),
    "of another log": (
        lambda: evolve(split(8), second=TWO.head(20, OTHER.root())),
        "not signed by",
    ),
    "grown": (lambda: back(5, 20), "not the smaller one"),
    "an older one": (lambda: back(at=NOW_MS - 1), "not the smaller one"),
    "at one moment": (lambda: back(at=NOW_MS), "not the smaller one"),
}


@pytest.mark.parametrize(("make", "told"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_proved_against_a_log_that_is_honest(
    make: Callable[[], Evidence], told: str
) -> None:
    with pytest.raises(PkiError, match=told):
        make().verify(LOGS)


def test_it_is_verified_for_logs_that_are_known() -> None:
    with pytest.raises(Unproven, match="not in the list of logs"):
        missing().verify(LogList((TWO.log, THREE.log), NOW))


def test_a_precertificate_is_evidence_as_well() -> None:
    pre = signed(with_poison(LEAF.tbs_certificate_bytes))
    assert type(evolve(missing(), certificate=pre).verify(LOGS)) is EntryMissing


@given(st.sampled_from(list(PROOFS.values())).flatmap(lambda row: mutated(row[0].to_bytes())))
def test_damage_raises_nothing_but_our_own_errors(data: bytes) -> None:
    try:
        found = parse_evidence(data)
    except Unproven:
        return
    try:
        assert found.verify(LOGS)
    except PkiError:
        return


@given(json_values)
def test_any_json_raises_nothing_but_our_own_errors(value: object) -> None:
    with pytest.raises(Unproven):
        parse_evidence(json.dumps(value).encode())


def test_a_proof_has_no_more_hashes_than_a_tree_can_have() -> None:
    with pytest.raises(Unproven, match="no evidence"):
        parse_evidence(evolve(missing(), proof=(bytes(32),) * 200).to_bytes())
