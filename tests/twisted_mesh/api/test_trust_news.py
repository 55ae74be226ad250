"""What a CA tells of whom to believe: read strictly and within bounds, and from CAs that say less."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.svid.x509svid import certificates_pem
from tests.authorities import NOW, overlap, revocation_of
from twisted_mesh.api.revocation_rows import revocation_of as read_row
from twisted_mesh.api.revocation_rows import row_of
from twisted_mesh.api.trust_news import (
    LONGEST_PEM,
    MOST_ABOVE,
    MOST_ISSUERS,
    MOST_REVOKED,
    MOST_WITHDRAWN,
    read_news,
)

BOTH = overlap()
PEM = certificates_pem([BOTH.by_new.certificate]).decode()
OLD_CA: dict[str, Any] = {"store": "s", "generation": 3, "bundles": {}, "revocations": []}
PIN = f"sha256/{'A' * 43}="
ROW = {
    "issuer": "ab",
    "serial": "0a",
    "revoked_at": "2026-11-23T10:00:00Z",
    "reason": "cACompromise",
    "expires_at": "2026-11-24T10:00:00Z",
}
KEY = BOTH.key_id


def read(**more: Any) -> Any:
    return read_news("the test", json.dumps(OLD_CA | more).encode())


def test_a_ca_of_before_says_nothing_of_it() -> None:
    told = read()
    assert (told.issuers, told.withdrawn_pins, told.edition) == (None, frozenset(), "")
    assert told.withdrawn_logs == frozenset()
    assert told.revocations == ()


def test_all_of_it_is_read() -> None:
    told = read(
        edition="0af",
        issuers={KEY: [PEM]},
        revoked_authorities=[ROW],
        withdrawn_pins=[PIN],
        withdrawn_logs=[PIN[7:]],
    )
    assert told.withdrawn_logs == {PIN[7:]}
    assert told.issuers == {KEY: (BOTH.by_new.certificate,)}
    assert told.withdrawn_pins == {PIN}
    assert told.edition == "0af"
    (revoked,) = told.revocations
    assert (revoked.issuer, revoked.serial) == ("ab", 10), (
        "whoever hears of revocations hears of it"
    )
    assert not told.more, "they come each time, and are not a page of the feed"
    assert read(issuers={}).issuers == {}


NONSENSE: dict[str, dict[str, Any]] = {
    "no object": {"issuers": []},
    "no list": {"issuers": {KEY: PEM}},
    "null": {"issuers": None},
    "no key id": {"issuers": {"AB" * 32: [PEM]}},
    "a short key id": {"issuers": {KEY[:-1]: [PEM]}},
    "no way": {"issuers": {KEY: []}},
    "a long way": {"issuers": {KEY: [PEM] * (MOST_ABOVE + 1)}},
    "a huge certificate": {"issuers": {KEY: [PEM + " " * LONGEST_PEM]}},
    "two in one": {"issuers": {KEY: [PEM + PEM]}},
    "no certificate": {"issuers": {KEY: ["nothing"]}},
    "an empty text": {"issuers": {KEY: [""]}},
    "a damaged certificate": {"issuers": {KEY: [PEM.replace("M", "N")]}},
    "half a surrogate pair": {"issuers": {KEY: ["\ud800"]}},
    "a crowd": {"issuers": {f"{n:064x}": [PEM] for n in range(MOST_ISSUERS + 1)}},
    "no pin": {"withdrawn_pins": ["sha256/abc"]},
    "a pin of another hash": {"withdrawn_pins": [PIN.replace("256", "512")]},
    "a pin with bits too many": {"withdrawn_pins": [f"sha256/{'A' * 42}B="]},
    "a pin with a line end": {"withdrawn_pins": [PIN + "\n"]},
    "many pins": {"withdrawn_pins": [PIN] * (MOST_WITHDRAWN + 1)},
    "no log": {"withdrawn_logs": [PIN]},
    "half a log": {"withdrawn_logs": ["A" * 42 + "="]},
    "many logs": {"withdrawn_logs": [PIN[7:]] * (MOST_WITHDRAWN + 1)},
    "no serial": {"revoked_authorities": [ROW | {"serial": "xyz"}]},
    "no time": {"revoked_authorities": [ROW | {"expires_at": "later"}]},
    "many revoked": {"revoked_authorities": [ROW] * (MOST_REVOKED + 1)},
    "no edition": {"edition": ""},
    "an edition of words": {"edition": "latest&after=0"},
    "a long edition": {"edition": "a" * 65},
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused(what: str) -> None:
    with pytest.raises(PkiError) as caught:
        read(**NONSENSE[what])
    assert len(str(caught.value)) < 400


@given(
    st.dictionaries(
        st.sampled_from(
            ["issuers", "withdrawn_pins", "withdrawn_logs", "revoked_authorities", "edition"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(PEM),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.just(KEY) | st.text(max_size=9), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    )
)
def test_nothing_but_what_is_expected_is_raised(more: dict[str, Any]) -> None:
    try:
        read(**more)
    except PkiError as error:
        assert error.problems


def test_a_revocation_is_read_as_it_was_told() -> None:
    revoked = revocation_of(BOTH.old, BOTH.old.certificate)
    assert revoked.revoked_at == NOW
    assert read_row(row_of(revoked)) == revoked
