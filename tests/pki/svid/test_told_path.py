"""The path that is told to be served above a leaf: judged before it is served, whoever tells it."""

from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509

from pki.errors import PkiError
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict, judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.told_path import other_path, switched
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import NOW, forge, forge_issuing, forge_root, key, mesh, overlap

BOTH = overlap()
LEAF = forge(BOTH.by_old)
SVID = X509Svid.assemble((LEAF, BOTH.by_old.certificate), key(9))
NEW = (BOTH.by_new.certificate,)


def peers(chain: Sequence[x509.Certificate], bundle: Any = BOTH.bundle) -> Verdict:
    known = RevocationSet()
    return judge(chain, BundleSet.of(bundle), known, now=NOW, purpose=Purpose.ANY)


def test_only_another_path_for_our_own_issuing_key_is_one() -> None:
    assert other_path(SVID, {}) is None
    assert other_path(SVID, {BOTH.key_id: SVID.intermediates}) is None
    assert other_path(SVID, {mesh().issuing.key_id: NEW}) is None
    assert other_path(SVID, {BOTH.key_id: NEW}) == NEW
    below_a_root = X509Svid.assemble((forge(BOTH.old),), key(9))
    assert other_path(below_a_root, {BOTH.old.key_id: NEW}) is None


def test_the_same_leaf_and_key_are_served_by_another_path() -> None:
    moved = switched(SVID, NEW, peers)
    assert (moved.leaf, moved.key, moved.spiffe_id) == (SVID.leaf, SVID.key, SVID.spiffe_id)
    assert moved.chain == (LEAF, *NEW)
    assert peers(moved.chain).path[-1] == BOTH.new.certificate


STRANGER = forge_root(70)
SAME_NAME = forge_issuing(BOTH.new, 71, subject=BOTH.by_new.certificate.subject)
BAD = {
    "another key": ((mesh().issuing.certificate,), "incomplete-chain"),
    "another key of that name": ((SAME_NAME.certificate,), "unknown-authority"),
    "a leaf": ((LEAF,), "malformed"),
    "a root that is not believed": (
        (forge_issuing(STRANGER, "issuing CA of both", subject=NEW[0].subject).certificate,),
        "unknown-authority",
    ),
    "two ways at once": ((*NEW, BOTH.by_old.certificate), "malformed"),
    "the root too": ((*NEW, BOTH.new.certificate), "malformed"),
    "something besides": ((*NEW, mesh().issuing.certificate), "malformed"),
    "nothing": ((), "incomplete-chain"),
    "a crowd": (NEW * 11, "malformed"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_way_to_a_root_that_is_believed_is_not_served(what: str) -> None:
    path, code = BAD[what]
    with pytest.raises(PkiError) as caught:
        switched(SVID, path, peers)
    assert [problem.code for problem in caught.value.problems] == [code]


def test_a_root_that_is_not_believed_yet_is_none_to_move_to() -> None:
    with pytest.raises(PkiError):
        switched(SVID, NEW, lambda chain: peers(chain, BOTH.bundle_of(BOTH.old)))
