"""A join token proves that an administrator made it for one entry; the reasons why one does not, in its own words."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from twisted.internet.defer import fail

from pki.policy.join_token import JoinToken
from pki.policy.policy import Forbidden, NoProof
from pki.policy.selector import Selector
from tests.authorities import NOW
from tests.twisted_mesh.attest.processes import outcome
from tests.twisted_mesh.attest.tokens import ENTRY, Tokens
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.stores.records import StoreError

MINUTE = timedelta(minutes=1)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


def attest(tokens: Tokens, text: str | None = None) -> Attestation | None:
    evidence = tokens.evidence if text is None else Evidence(token=text)
    return outcome(tokens.attestor.attest(evidence))


def refusal(tokens: Tokens, text: str | None = None) -> str:
    with pytest.raises(NoProof) as refused:
        attest(tokens, text)
    assert (text or tokens.token.text) not in str(refused.value)
    return str(refused.value)


def test_a_good_token_attests_the_token_selectors_of_its_entry_and_nothing_else(
    tokens: Tokens,
) -> None:
    assert attest(tokens) == Attestation(
        f"token:{tokens.token.id}",
        frozenset({Selector("token", "web"), Selector("token", ENTRY.id)}),
        entry=ENTRY.id,
        token=tokens.known[tokens.token.digest],
    )


def test_a_spent_token_and_one_for_a_key_are_attested_with_what_the_ca_decides_by(
    tokens: Tokens,
) -> None:
    changed = tokens.become(spent_at=NOW, serial=7, key="ab" * 32)
    attestation = attest(tokens)
    assert attestation is not None
    assert attestation.token is changed


@pytest.mark.parametrize("cut", [0, 1, 5, 20, 43])
def test_a_truncated_token_is_refused_before_anybody_is_asked(cut: int, tokens: Tokens) -> None:
    text = tokens.token.text[:cut]
    with pytest.raises(NoProof, match="no whole join token"):
        attest(tokens, text)
    assert tokens.asked == []


def test_a_mistyped_token_is_refused_before_anybody_is_asked(tokens: Tokens) -> None:
    text = tokens.token.text
    other = "b" if text[10] == "a" else "a"
    assert "no whole join token" in refusal(tokens, f"{text[:10]}{other}{text[11:]}")
    assert tokens.asked == []


def test_an_unknown_token_is_refused_alike_whether_it_ever_was(tokens: Tokens) -> None:
    never = refusal(tokens, JoinToken.generate().text)
    tokens.known.clear()
    assert refusal(tokens) == never
    assert "knows no such join token" in never


def test_a_store_that_answers_with_another_token_is_not_believed(tokens: Tokens) -> None:
    other = JoinToken.generate()
    tokens.known[other.digest] = tokens.known[tokens.token.digest]
    assert "knows no such join token" in refusal(tokens, other.text)


REFUSALS: dict[str, tuple[Callable[[Tokens], object], str]] = {
    "revoked": (lambda t: t.become(revoked_at=NOW), "was revoked at 2026-11-23T10:00:00Z"),
    "expired": (
        lambda t: t.become(expires_at=NOW - timedelta(seconds=1)),
        "expired at 2026-11-23T09:59:59Z",
    ),
    "spent, and expired since": (
        lambda t: t.become(spent_at=NOW - 2 * MINUTE, expires_at=NOW - MINUTE),
        "expired at",
    ),
    "spent, and revoked since": (lambda t: t.become(spent_at=NOW, revoked_at=NOW), "was revoked"),
    "expired and revoked": (
        lambda t: t.become(expires_at=NOW - MINUTE, revoked_at=NOW - 2 * MINUTE),
        "was revoked",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_token_that_counts_no_more_is_refused_with_the_reason(name: str, tokens: Tokens) -> None:
    change, sentence = REFUSALS[name]
    change(tokens)
    said = refusal(tokens)
    assert sentence in said
    assert "mesh-ctl token create" in said


def test_at_its_last_moment_it_is_good(tokens: Tokens) -> None:
    tokens.time = tokens.known[tokens.token.digest].expires_at
    assert attest(tokens) is not None
    tokens.time += timedelta(microseconds=1)
    assert "expired" in refusal(tokens)


def test_a_token_whose_entry_is_gone_is_forbidden(tokens: Tokens) -> None:
    tokens.entries.clear()
    with pytest.raises(Forbidden, match=ENTRY.id) as refused:
        attest(tokens)
    assert refused.value.rule == "no-entry"


def test_a_store_that_fails_is_not_the_tokens_fault(tokens: Tokens) -> None:
    tokens.attestor.find_token = lambda digest: fail(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="disk is full"):
        attest(tokens)
