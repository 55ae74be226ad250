"""Join tokens: long enough to be unguessable, whole or refused, and never shown."""

import hashlib
from base64 import b32decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.policy.join_token import LIFETIME, MAX_LIFETIME, BadToken, JoinToken, token_id

TOKEN = JoinToken.generate()
CHARACTERS = "abcdefghijklmnopqrstuvwxyz234567"


def test_a_token_has_160_random_bits() -> None:
    secrets = {b32decode(JoinToken.generate().text[4:36].upper()) for _ in range(200)}
    assert len(secrets) == 200
    assert {len(secret) for secret in secrets} == {20}
    # Each of the bits is sometimes set and sometimes not: nothing of them is fixed.
    numbers = [int.from_bytes(secret, "big") for secret in secrets]
    for bit in range(160):
        assert len({number >> bit & 1 for number in numbers}) == 2


def test_a_token_reads_back() -> None:
    for token in (TOKEN, JoinToken.generate()):
        assert JoinToken.parse(token.text) == token
        assert len(token.text) == 44
        assert token.text.startswith("mj1_")


@given(st.text() | st.from_regex(r"\Amj1_[a-z2-7]{40}\Z") | st.from_regex(r"mj1_[a-z2-7]*"))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadToken) as refusal:
        JoinToken.parse(text)
    assert refusal.value.code == "bad-token"


@given(st.integers(0, 43), st.sampled_from(CHARACTERS) | st.characters())
def test_a_single_changed_character_is_noticed(place: int, other: str) -> None:
    text = TOKEN.text[:place] + other + TOKEN.text[place + 1 :]
    if text != TOKEN.text:
        with pytest.raises(BadToken):
            JoinToken.parse(text)


@given(st.integers(0, 42), st.integers(0, 31))
def test_two_characters_in_each_others_place_are_noticed(place: int, other: int) -> None:
    characters = list(TOKEN.text)
    first, second = sorted((place, other))
    characters[first], characters[second] = characters[second], characters[first]
    if "".join(characters) != TOKEN.text:
        with pytest.raises(BadToken):
            JoinToken.parse("".join(characters))


@given(st.integers(0, 43), st.integers(0, 44))
def test_a_token_that_is_cut_short_is_noticed(end: int, start: int) -> None:
    for part in (TOKEN.text[:end], TOKEN.text[start:]):
        if part != TOKEN.text:
            with pytest.raises(BadToken):
                JoinToken.parse(part)


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\n{}", "{}=", "{}{}", "'{}'"])
def test_what_was_copied_along_is_noticed(around: str) -> None:
    with pytest.raises(BadToken):
        JoinToken.parse(around.format(TOKEN.text, TOKEN.text))


def test_a_token_in_upper_case_is_another_text() -> None:
    with pytest.raises(BadToken):
        JoinToken.parse(TOKEN.text.upper())


def test_nothing_of_it_is_shown() -> None:
    secret = TOKEN.text[4:]
    assert secret[:8] not in repr(TOKEN)
    assert secret[:8] not in str(TOKEN)
    for damaged in (TOKEN.text[:-1], TOKEN.text + "x"):
        with pytest.raises(PkiError) as refusal:
            JoinToken.parse(damaged)
        assert secret[:8] not in str(refusal.value)
        assert refusal.value.__context__ is None


def test_what_is_kept_tells_a_token_and_makes_none() -> None:
    other = JoinToken.generate()
    assert TOKEN.digest == hashlib.sha256(TOKEN.text.encode()).digest()
    assert TOKEN.is_one(TOKEN.digest)
    assert not TOKEN.is_one(other.digest)
    assert not TOKEN.is_one(b"")
    assert TOKEN.id == token_id(TOKEN.digest) == TOKEN.digest.hex()[:12]
    assert TOKEN.id != other.id


def test_it_lives_for_minutes_unless_its_maker_says_otherwise() -> None:
    assert LIFETIME.total_seconds() == 600
    assert LIFETIME < MAX_LIFETIME
