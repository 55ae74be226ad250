"""Cosignatures: asked for, verified, shown; and a log that was put back is found by what a witness has of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from pki.ct.tree_head import HeadText, WitnessKey, cosign, cosignatures_of, open_note
from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from pki.tlog.merkle import BadProof, verify_consistency
from pki.tlog.note import Note, unbase64
from tests.authorities import key
from tests.ctlogs import LogRig
from twisted_mesh.ctlog.errors import ContradictsItself
from twisted_mesh.ctlog.store import Head
from twisted_mesh.ctlog.witness_address import WitnessAddress
from twisted_mesh.ctlog.witnesses import Witness, Witnesses
from twisted_mesh.http.https_client import WebUrl
from twisted_mesh.runtime.log import logger

NAME = "witness.example/w1"
SIGNS = key("a witness", KeyAlgorithm.ED25519)
PUBLIC = WitnessKey(NAME, SIGNS.public_key.public_bytes_raw())  # type: ignore[union-attr]


@define
class Cosigner:
    """A witness as C2SP's tlog-witness has it, and no more."""

    seen: HeadText = field(factory=lambda: HeadText("", 0, b""))
    note: str = ""
    is_away: bool = False
    lies: bool = False
    asked: list[int] = field(factory=list)

    async def ask(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self.is_away:
            raise PkiError("nobody is there")
        if body is None:
            return (200, self.note.encode()) if self.note else (404, b"")
        lines, _, note = body.decode().partition("\n\n")
        old, *proof = lines.split("\n")
        size = int(old.removeprefix("old "))
        head = HeadText.parse(Note.parse(note).text)
        self.asked.append(size)
        if size != self.seen.size:
            return 409, f"{self.seen.size}\n".encode()
        try:
            if size:
                hashes = [unbase64(line) for line in proof]
                verify_consistency(size, head.size, self.seen.root, head.root, hashes)
        except BadProof:
            return 422, b""
        self.seen, self.note = head, note
        text = "x" + Note.parse(note).text if self.lies else Note.parse(note).text
        return 200, f"{await cosign(text, 1_800_000_000, NAME, SIGNS)}\n".encode()


@define
class Round:
    rig: LogRig
    cosigner: Cosigner
    witnesses: Witnesses = field(init=False)
    halted: list[ContradictsItself] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        ledger = self.rig.ledger

        async def prove(first: int, second: int) -> Any:
            return ledger.proof_between(first, second)

        async def publish(head: Head, lines: Any, by_all: bool) -> None:
            ledger.cosign(head, lines, by_all=by_all)

        address = WitnessAddress(WebUrl.parse("https://w.example:1", "x"), PUBLIC)
        self.witnesses = Witnesses(
            ledger.key,
            [Witness(address, self.cosigner.ask)],
            prove,
            publish,
            self.halted.append,
            lambda: ledger.head.size,
            self.rig.clock,
            logger("ctlog"),
        )
        self.witnesses.on_head(ledger.published)
        self.witnesses.start()

    def grow(self, count: int) -> None:
        self.rig.fill(count)
        self.witnesses.on_head(self.rig.ledger.published)
        self.rig.clock.advance(1)

    @property
    def note(self) -> str:
        return (self.rig.home / "public" / "checkpoint").read_text()

    @property
    def cosignatures(self) -> int:
        assert open_note(self.note, self.rig.log).size == self.rig.ledger.head.size
        return len(cosignatures_of(self.note, [PUBLIC]))


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Round]:
    made = Round(LogRig(tmp_path / "log"), Cosigner())
    yield made
    made.witnesses.stop()
    made.rig.close()


def test_each_head_is_cosigned_with_a_proof_from_the_one_before(asked: Round) -> None:
    assert asked.cosigner.asked == []  # of a log without entries there is nothing to say
    for count in (1, 300, 7):
        asked.grow(count)
        assert asked.cosignatures == 1
    assert asked.cosigner.asked == [0, 1, 301]
    asked.rig.clock.advance(5)
    assert asked.cosigner.asked == [0, 1, 301]
    cosigned = (asked.rig.home / "public" / "checkpoint.cosigned").read_text()
    assert cosigned == asked.note
    (witness,) = asked.witnesses.witnesses
    assert (witness.size, witness.cosigned_at) == (308, 1_800_000_000)


def test_a_log_that_starts_again_learns_what_the_witness_has(asked: Round) -> None:
    asked.grow(10)
    asked.witnesses.stop()
    again = Round(asked.rig.again(), asked.cosigner)
    again.grow(5)
    assert asked.cosigner.asked == [0, 0, 10, 10] or asked.cosigner.asked[-1] == 10
    assert again.cosignatures == 1
    again.witnesses.stop()
    again.rig.close()


def test_a_stranger_who_is_quicker_at_the_witness_halts_no_log(asked: Round) -> None:
    """Everybody can read a checkpoint and show it to a witness, while the log asks it about the one before."""
    asked.grow(3)
    asked.rig.fill(2)
    asked.witnesses.on_head(asked.rig.ledger.published)
    asked.rig.fill(4)
    newest = asked.rig.ledger.published
    asked.cosigner.seen, asked.cosigner.note = (
        HeadText.parse(Note.parse(newest.note).text),
        newest.note,
    )
    asked.rig.clock.advance(1)
    assert not asked.halted
    asked.witnesses.on_head(newest)
    asked.rig.clock.advance(1)
    assert asked.cosignatures == 1
    (witness,) = asked.witnesses.witnesses
    assert witness.problem is None


def test_who_is_away_is_asked_again_and_holds_up_nothing(asked: Round) -> None:
    asked.cosigner.is_away = True
    asked.grow(3)
    assert asked.cosignatures == 0
    (witness,) = asked.witnesses.witnesses
    assert witness.problem is not None and "nobody is there" in witness.problem.detail
    asked.cosigner.is_away = False
    asked.rig.clock.pump([1] * 11)
    assert asked.cosignatures == 1
    assert witness.problem is None


def test_what_is_no_cosignature_is_not_shown(asked: Round) -> None:
    asked.cosigner.lies = True
    asked.grow(3)
    assert "witness.example" not in asked.note
    (witness,) = asked.witnesses.witnesses
    assert witness.problem is not None and "wrong" in witness.problem.detail


def test_a_log_that_was_put_back_as_a_whole_is_found(asked: Round, tmp_path: Path) -> None:
    asked.grow(10)
    asked.rig.close()
    older = Round(LogRig(tmp_path / "older", asked.rig.of), asked.cosigner)
    older.grow(5)
    (error,) = older.halted
    assert "put back" in str(error) and "10 entries" in str(error)
    # Whoever only says that there is more is not believed.
    asked.cosigner.note = "nothing\n"
    newer = Round(LogRig(tmp_path / "newer", asked.rig.of), asked.cosigner)
    newer.grow(5)
    assert newer.halted == []
    for made in (older, newer):
        made.witnesses.stop()
        made.rig.close()


def test_an_address_is_read_back() -> None:
    for text in (
        f"https://w.example:8460#{PUBLIC}",
        f"https://w.example#{PUBLIC},sha256/{'A' * 43}=",
    ):
        assert str(WitnessAddress.parse(text)) == text
    for text in ("https://w.example", "http://w.example#x", f"https://w.example#{PUBLIC},x"):
        with pytest.raises(PkiError, match="--witness"):
            WitnessAddress.parse(text)
