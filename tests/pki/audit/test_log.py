"""Entries of the audit log, checkpoints as signed notes, and what a witness lets pass."""

import asyncio
import base64
import hashlib
import json
import subprocess
import traceback
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pki.audit.advance import Forked, LogContradicts, Replaced, RolledBack, advance
from pki.audit.log import Act, BadCheckpoint, BadEntry, Checkpoint, Entry, LogKey, Verifier
from pki.errors import PkiError
from pki.keys import UnusableKey
from pki.tlog import merkle
from pki.tlog.merkle import EMPTY_ROOT
from tests.authorities import NOW, key
from tests.pki.strategies import mutated
from tests.pki.tlog.test_merkle import Tiles
from tests.tools import require_tool

ORIGIN = "mesh.local/audit/0123456789abcdef"
# Always the same: they are in the names of tests, and every worker must collect the same ones.
KEY, OTHER_KEY = (
    LogKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))) for seed in (1, 2)
)
ROOT = hashlib.sha256(b"a root").digest()
POINT = Checkpoint(ORIGIN, 20852163, ROOT, NOW)
NOTE = asyncio.run(KEY.sign(POINT))
DASH = "\N{EM DASH}"

ENTRY = Entry(
    NOW.replace(microsecond=120),
    Act.ISSUE,
    "x509:spiffe://mesh.local/service/api serial 4a5b",
    "4a5b6c7d",
    {"spiffe_id": "spiffe://mesh.local/service/api", "digest": "00ff", "grüße": "\x01\n"},
)

# UTF-8 has no halves of surrogate pairs, and so no entry has.
texts = st.text(st.characters(exclude_categories=["Cs"]))
times = st.datetimes(
    datetime.fromisoformat("0002-01-01"),
    datetime.fromisoformat("9998-12-31"),
    timezones=st.just(UTC) | st.integers(-720, 720).map(lambda m: timezone(timedelta(minutes=m))),
)
entries = st.builds(
    Entry, times, st.sampled_from(Act), texts, texts, st.dictionaries(texts, texts, max_size=5)
)
names = st.text(st.characters(codec="utf-8", exclude_characters="+"), min_size=1, max_size=40)
names = names.filter(lambda name: name.isprintable() and not any(c.isspace() for c in name))
checkpoints = st.builds(
    lambda name, size, root, at: Checkpoint(name, size, root if size else EMPTY_ROOT, at),
    names,
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    times,
)


def signed(text: str, by: LogKey = KEY) -> str:
    """``text`` as a note: whatever it says, the signature is good."""
    signature = by.verifier.key_hash + by.private_key.sign(text.encode())
    return f"{text}\n{line(by.name, signature)}"


def line(name: str, signature: bytes) -> str:
    return f"{DASH} {name} {base64.b64encode(signature).decode()}\n"


# Entries.


@given(entries)
def test_an_entry_reads_back(entry: Entry) -> None:
    assert Entry.parse(entry.to_bytes()) == entry


@given(entries)
def test_an_entry_is_canonical_json(entry: Entry) -> None:
    at = entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
    document = {
        "object": entry.object,
        "facts": entry.facts,
        "at": at,
        "actor": entry.actor,
        "act": str(entry.act),
    }
    assert json.loads(entry.to_bytes()) == document
    shown = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    # How control characters are escaped is a JSON writer's own choice; keys and spaces are not.
    if not any(c < " " or c == "\x7f" for c in shown):
        assert entry.to_bytes().decode() == shown


def test_an_entry_is_written_like_this() -> None:
    entry = Entry(
        datetime(2026, 11, 23, 10, tzinfo=UTC), Act.WRITE_OFF, "self", "4a5b", {"b": "1", "a": "ü"}
    )
    assert entry.to_bytes().decode() == (
        '{"act":"write-off","actor":"self","at":"2026-11-23T10:00:00.000000Z",'
        '"facts":{"a":"ü","b":"1"},"object":"4a5b"}'
    )


def test_facts_may_come_in_any_mapping_and_order() -> None:
    facts = MappingProxyType(dict(reversed(ENTRY.facts.items())))
    entry = Entry(ENTRY.at, ENTRY.act, ENTRY.actor, ENTRY.object, facts)
    assert entry.to_bytes() == ENTRY.to_bytes()


GOOD: dict[str, Any] = {
    "act": "stop",
    "actor": "self",
    "at": "2026-11-23T10:00:00.000001Z",
    "facts": {},
    "object": "",
}


def canonical(**members: Any) -> bytes:
    return json.dumps({**GOOD, **members}, sort_keys=True, separators=(",", ":")).encode()


def test_the_vectors_below_differ_from_a_good_entry() -> None:
    assert Entry.parse(canonical()).act is Act.STOP


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        canonical()[:-1],
        canonical() + b"\n",
        b" " + canonical(),
        b"\xef\xbb\xbf" + canonical(),
        canonical().replace(b":{}", b": {}"),
        canonical().replace(b'"act"', b'"\\u0061ct"'),
        canonical(act="steal"),
        canonical(act=None),
        canonical(actor=1),
        canonical(more="1"),
        canonical(object=[]),
        canonical(facts=[]),
        canonical(facts={"a": 1}),
        canonical(facts={"a": None}),
        canonical(facts={"a": {"b": "c"}}),
        canonical(facts={"b": "1", "a": "2"}).replace(b'"a":"2","b":"1"', b'"b":"1","a":"2"'),
        canonical(facts={"a": "1"}).replace(b'"a":"1"', b'"a":"1","a":"1"'),
        canonical().replace(b'"act"', b'"act":"stop","act"'),
        canonical().replace(b',"object":""', b""),
        b'{"object":"",' + canonical()[1:].replace(b',"object":""', b""),
        canonical(actor="\ud800"),
        canonical(at="2026-11-23T10:00:00Z"),
        canonical(at="2026-11-23T10:00:00.1Z"),
        canonical(at="2026-11-23T10:00:00.0000010Z"),
        canonical(at="2026-11-23T10:00:00.000001"),
        canonical(at="2026-11-23T11:00:00.000001+01:00"),
        canonical(at="2026-11-23T10:00:00.000001+00:00"),
        canonical(at="2026-11-23 10:00:00.000001Z"),
        canonical(at="0001-01-01T00:00:00.000001+14:00"),
        canonical(at=1),
        b"[" * 100_000,
        b'{"facts":' * 100_000,
        canonical().replace(b"{}", b'{"a":' * 5000 + b"{}" + b"}" * 5000),
    ],
)
def test_what_this_log_would_not_have_written_is_no_entry(data: bytes) -> None:
    with pytest.raises(BadEntry):
        Entry.parse(data)


@given(st.binary() | mutated(ENTRY.to_bytes()))
def test_any_bytes_are_an_entry_or_a_bad_one(data: bytes) -> None:
    try:
        entry = Entry.parse(data)
    except PkiError as error:
        assert error.code == "bad-entry"
        return
    assert entry.to_bytes() == data


# Checkpoints and notes.


def test_a_checkpoint_is_written_as_tlog_checkpoint_says() -> None:
    text, _, signature = NOTE.rpartition("\n\n")
    assert text.split("\n") == [
        ORIGIN,
        "20852163",
        base64.b64encode(ROOT).decode(),
        f"time {NOW:%Y-%m-%dT%H:%M:%S}.000000Z",
    ]
    dash, name, encoded = signature.removesuffix("\n").split(" ")
    assert (dash, name) == ("\u2014", ORIGIN)
    raw = base64.b64decode(encoded)
    assert len(raw) == 4 + 64
    public = KEY.private_key.public_key()
    expected = hashlib.sha256(ORIGIN.encode() + b"\x0a\x01" + public.public_bytes_raw()).digest()
    assert raw[:4] == expected[:4]
    public.verify(raw[4:], (text + "\n").encode())


@pytest.mark.parametrize(
    ("verifier", "note"),
    [
        (  # The note of Go's documentation.
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "If you think cryptography is the answer to your problem,\n"
            "then you don't know what your problem is.\n\n"
            f"{DASH} PeterNeumann "
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
        ),
        (  # One that Go's checksum database signed.
            "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
            f"{DASH} sum.golang.org "
            "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n",
        ),
    ],
)
def test_the_signatures_of_others_notes_hold_here(verifier: str, note: str) -> None:
    parsed = Verifier.parse(verifier)
    assert str(parsed) == verifier
    # The signature is looked at first, and what was signed is no checkpoint of ours.
    with pytest.raises(BadCheckpoint, match="the note is no checkpoint"):
        parsed.open(note)
    with pytest.raises(BadCheckpoint, match=r"the signature of .* is wrong"):
        parsed.open(note.replace("t", "T", 1))


def test_openssl_verifies_a_checkpoint(tmp_path: Path) -> None:
    openssl = require_tool("openssl")
    text, _, signature = NOTE.rpartition("\n\n")
    (tmp_path / "text").write_text(text + "\n")
    (tmp_path / "key.pem").write_bytes(KEY.to_pem())
    (tmp_path / "signature").write_bytes(base64.b64decode(signature.split(" ")[2])[4:])
    command = [openssl, "pkeyutl", "-verify", "-rawin", "-in", "text", "-inkey", "key.pem"]
    judged = subprocess.run(
        [*command, "-sigfile", "signature"], cwd=tmp_path, capture_output=True, text=True
    )
    assert judged.returncode == 0, judged.stderr


@given(checkpoints)
def test_a_signed_checkpoint_opens_and_is_the_same(checkpoint: Checkpoint) -> None:
    signer = LogKey(checkpoint.origin, KEY.private_key)
    note = asyncio.run(signer.sign(checkpoint))
    assert signer.verifier.open(note) == checkpoint
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@given(names)
def test_a_verifier_reads_back(name: str) -> None:
    verifier = LogKey(name, KEY.private_key).verifier
    assert Verifier.parse(str(verifier)) == verifier


@given(mutated(NOTE.encode()))
def test_a_changed_note_is_refused_or_says_the_same(data: bytes) -> None:
    try:
        # What damaged UTF-8 becomes in a careless caller's hands.
        checkpoint = KEY.verifier.open(data.decode("utf-8", "surrogateescape"))
    except PkiError as error:
        assert error.code == "bad-checkpoint"
        return
    assert checkpoint == POINT


@given(st.text())
def test_any_text_is_a_note_a_verifier_and_a_checkpoint_or_refused(text: str) -> None:
    for parse in (KEY.verifier.open, Verifier.parse, Checkpoint.parse):
        with pytest.raises(BadCheckpoint):
            parse(text)


@given(mutated(str(KEY.verifier).encode()))
def test_a_changed_verifier_is_refused_or_the_same(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        verifier = Verifier.parse(text)
    except PkiError as error:
        assert error.code == "bad-checkpoint"
        return
    assert str(verifier) == text


def test_another_key_of_the_same_name_is_another_key() -> None:
    with pytest.raises(BadCheckpoint, match="is not signed by the key of mesh"):
        OTHER_KEY.verifier.open(NOTE)


def test_lines_of_other_keys_are_passed_over_wherever_they_stand() -> None:
    text, _, ours = NOTE.rpartition("\n\n")
    others = [
        line("witness.example/1", b"\x00\x01\x02\x03" + bytes(5000)),
        line("witness.example/2", KEY.verifier.key_hash + bytes(64)),  # our hash, another name
        line(ORIGIN, OTHER_KEY.verifier.key_hash + bytes(64)),  # our name, another hash
    ]
    for lines in ([*others, ours], [ours, *others], [others[0]] * 8 + [ours] + [others[0]] * 7):
        assert KEY.verifier.open(f"{text}\n\n{''.join(lines)}") == POINT


def test_two_keys_sign_one_note() -> None:
    both = NOTE + signed(POINT.text, OTHER_KEY).rpartition("\n\n")[2]
    assert KEY.verifier.open(both) == OTHER_KEY.verifier.open(both) == POINT


def test_a_line_of_our_key_that_fails_spoils_the_note_even_beside_a_good_one() -> None:
    for spoilt in (bytes(64), b"", bytes(3000)):
        with pytest.raises(BadCheckpoint, match=r"the signature of .* is wrong"):
            KEY.verifier.open(NOTE + line(ORIGIN, KEY.verifier.key_hash + spoilt))


TEXT = POINT.text
ENCODED = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("20852163", "020852163"),
        TEXT.replace("20852163", "+20852163"),
        TEXT.replace("20852163", "-1"),
        TEXT.replace("20852163", " 20852163"),
        TEXT.replace("20852163", "20_852_163"),
        TEXT.replace("20852163", "٢٠"),
        TEXT.replace("20852163", ""),
        TEXT.replace("20852163", "9" * 5000),
        TEXT.replace("20852163", str(2**63)),
        TEXT.replace("20852163", "0"),  # an empty log with a root of its own
        TEXT.replace("20852163", "00").replace(ENCODED, base64.b64encode(EMPTY_ROOT).decode()),
        TEXT.replace(ENCODED, ENCODED[:-1]),
        TEXT.replace(ENCODED, ENCODED + "="),
        TEXT.replace(ENCODED, base64.b64encode(ROOT[1:]).decode()),
        TEXT.replace(ENCODED, base64.b64encode(ROOT + b"\0").decode()),
        TEXT.replace(ENCODED, ROOT.hex()),
        TEXT.replace("time ", ""),
        TEXT.replace("time ", "Time "),
        TEXT.replace("time ", "time  "),
        TEXT.replace(".000000Z", "Z"),
        TEXT.replace(".000000Z", ".000000+00:00"),
        TEXT.replace(".000000Z", ".000000"),
        TEXT.replace("time", "time now\ntime"),
        TEXT.partition("time")[0],
        TEXT + "more\n",
        TEXT + "\n",
        "\n" + TEXT,
        TEXT.replace("\n", "\n\n", 1),
    ],
)
def test_what_is_signed_and_not_canonical_is_refused(text: str) -> None:
    assert text != TEXT
    with pytest.raises(BadCheckpoint):
        KEY.verifier.open(signed(text))


def test_a_checkpoint_of_another_log_is_refused_although_our_key_signed_it() -> None:
    with pytest.raises(BadCheckpoint, match="is of the log elsewhere, not of mesh"):
        KEY.verifier.open(signed(TEXT.replace(ORIGIN, "elsewhere")))


def test_a_key_signs_for_its_own_log_only() -> None:
    with pytest.raises(BadCheckpoint, match="does not sign for the log elsewhere"):
        asyncio.run(KEY.sign(Checkpoint("elsewhere", 1, ROOT, NOW)))


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        TEXT + "\n",
        NOTE.removesuffix("\n"),
        NOTE + "\n",
        NOTE.replace("\n", "\r\n"),
        NOTE.replace(DASH, "-"),
        NOTE.replace(DASH, "\u2013"),
        NOTE.replace(f"{DASH} ", DASH),
        NOTE.replace("\n\n", "\n"),
        NOTE + f"{DASH} witness\n",
        NOTE + f"{DASH} witness AAAAAAAA=\n",
        NOTE + f"{DASH}  AAAAAAAA\n",
        NOTE + "gibberish\n",
        NOTE + line("a\tb", bytes(68)),
        NOTE + line("a\x00b", bytes(68)),
        NOTE + line("a\ud800b", bytes(68)),
        NOTE + line("witness", bytes(200_000)),
    ],
)
def test_a_damaged_note_is_refused(note: str) -> None:
    with pytest.raises(BadCheckpoint):
        KEY.verifier.open(note)


def verifier_text(name: str, kind: bytes, public: bytes) -> str:
    digest = hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4].hex()
    return f"{name}+{digest}+{base64.b64encode(kind + public).decode()}"


PUBLIC = KEY.verifier.public_bytes


def test_a_verifier_is_written_as_signed_note_says() -> None:
    assert str(KEY.verifier) == verifier_text(ORIGIN, b"\x01", PUBLIC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "++",
        ORIGIN,
        verifier_text("", b"\x01", PUBLIC),
        verifier_text("a b", b"\x01", PUBLIC),
        verifier_text("a\u2003b", b"\x01", PUBLIC),
        verifier_text("a+b", b"\x01", PUBLIC),
        verifier_text("a\nb", b"\x01", PUBLIC),
        verifier_text("a\x01b", b"\x01", PUBLIC),
        verifier_text("a" * 201, b"\x01", PUBLIC),
        verifier_text(ORIGIN, b"\x04", PUBLIC),
        verifier_text(ORIGIN, b"\x01", PUBLIC[:-1]),
        verifier_text(ORIGIN, b"\x01", PUBLIC + b"\0"),
        verifier_text(ORIGIN, b"\x01", PUBLIC).replace("+", "+0", 1),
        verifier_text(ORIGIN, b"\x01", PUBLIC) + "\n",
        verifier_text(ORIGIN, b"\x01", PUBLIC) + "+",
        str(KEY.verifier).replace(KEY.verifier.key_hash.hex(), "00000000"),
        verifier_text("MESH", b"\x01", PUBLIC).replace("MESH", "mesh"),
    ],
)
def test_what_is_no_verifier_is_refused(text: str) -> None:
    with pytest.raises(BadCheckpoint):
        Verifier.parse(text)


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\nb", "a\u2028b", "a\x7f\x01", "\ud800", "a" * 201]
)
def test_a_log_has_a_name_that_notes_can_carry(name: str) -> None:
    with pytest.raises(BadCheckpoint, match="is no name of an audit log"):
        LogKey.generate(name)


# Keys.


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_reads_back_from_its_pem(passphrase: bytes | None) -> None:
    read = LogKey.from_pem(ORIGIN, KEY.to_pem(passphrase), passphrase)
    assert read.verifier == KEY.verifier


def test_an_encrypted_key_wants_its_passphrase() -> None:
    pem = KEY.to_pem(b"correct horse")
    with pytest.raises(UnusableKey, match="passphrase is missing"):
        LogKey.from_pem(ORIGIN, pem)
    with pytest.raises(UnusableKey, match="a wrong passphrase"):
        LogKey.from_pem(ORIGIN, pem, b"battery staple")
    with pytest.raises(UnusableKey, match="given for a key that has none"):
        LogKey.from_pem(ORIGIN, KEY.to_pem(), b"correct horse")


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(UnusableKey, match="is an Ed25519 key, and this is another kind"):
        LogKey.from_pem(ORIGIN, key().to_pem())


@given(st.binary() | mutated(KEY.to_pem()))
def test_any_bytes_are_a_key_or_unusable(data: bytes) -> None:
    try:
        read = LogKey.from_pem(ORIGIN, data)
    except PkiError as error:
        assert error.code == "unusable-key"
        return
    assert isinstance(read.private_key, ed25519.Ed25519PrivateKey)


def test_nothing_shows_the_key() -> None:
    assert "private" not in repr(KEY)
    secret = KEY.to_pem().split(b"\n")[1].decode()
    try:
        LogKey.from_pem(ORIGIN, KEY.to_pem()[:-30])
    except UnusableKey as error:
        assert secret not in "".join(traceback.format_exception(error))


# Witnesses.

LATER = NOW + timedelta(hours=1)
LOG = Tiles([b"%d" % n for n in range(600)])


def at_size(size: int, log: Tiles = LOG, at: datetime = LATER, origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, size, merkle.root(size, log.read), at)


@given(st.integers(0, 600), st.integers(0, 600))
def test_a_witness_follows_a_log_that_only_grows(one: int, two: int) -> None:
    old, new = sorted((one, two))
    proof = merkle.consistency_proof(old, new, LOG.read) if old else ()
    assert advance(at_size(old, at=NOW), at_size(new), proof) == at_size(new)


def test_what_is_seen_first_is_believed() -> None:
    assert advance(None, at_size(5), ()) == at_size(5)


def test_no_proof_is_needed_where_nothing_changed() -> None:
    assert advance(at_size(5, at=NOW), at_size(5), ()) == at_size(5)
    assert advance(at_size(5, at=NOW), at_size(5), [ROOT]) == at_size(5)


def test_a_smaller_log_was_rolled_back() -> None:
    with pytest.raises(
        RolledBack, match=r"has 300 entries and had 500 entries .* find out who"
    ) as caught:
        advance(at_size(500), at_size(300), merkle.consistency_proof(300, 500, LOG.read))
    assert caught.value.code == "log-rolled-back"


def test_an_empty_log_after_a_full_one_was_rolled_back() -> None:
    with pytest.raises(RolledBack, match="has 0 entries and had 1 entries"):
        advance(at_size(1), at_size(0), ())


def test_another_root_for_the_same_size_is_a_fork() -> None:
    with pytest.raises(
        Forked, match=r"the log of 300 entries .* had 300 entries .* compare"
    ) as caught:
        advance(at_size(300), at_size(300, Tiles([b"other"] * 300)), ())
    assert caught.value.code == "log-forked"


def test_a_log_rewritten_and_grown_is_a_fork_by_any_proof_it_can_show() -> None:
    other = Tiles([b"other", *(b"%d" % n for n in range(1, 600))])
    seen, new = at_size(300), at_size(600, other)
    for log in (LOG, other):
        with pytest.raises(Forked, match=r"600 entries .* 300 entries"):
            advance(seen, new, merkle.consistency_proof(300, 600, log.read))
    with pytest.raises(Forked):
        advance(seen, new, ())


def test_another_origin_is_another_log() -> None:
    with pytest.raises(
        Replaced, match=r"elsewhere with 600 entries now, .* with 300 entries"
    ) as caught:
        advance(at_size(300), at_size(600, origin="elsewhere"), ())
    assert caught.value.code == "log-replaced"


@given(st.integers(0, 9), st.integers(0, 9), st.lists(st.binary(max_size=40), max_size=4))
def test_a_witness_is_never_led_elsewhere_by_rubbish(
    old: int, new: int, proof: list[bytes]
) -> None:
    # The proof from 2 to 4 and the like could be guessed; these bytes are no hashes of this log.
    seen, claimed = at_size(old), at_size(new, Tiles([b"other"] * 9))
    if old == 0 or (old, claimed.root) == (new, seen.root):
        return
    with pytest.raises(LogContradicts):
        advance(seen, claimed, proof)
