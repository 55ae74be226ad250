"""The signer's log: each line bound to the one before; one that was cut, changed or replaced is not gone on with."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mesh.signer.errors import SignerStateError
from twisted_mesh.signer.signing_log import (
    DamagedLog,
    End,
    Line,
    Said,
    SigningLog,
    parse_line,
    verified,
)

EMPTY = End()


def said(number: int) -> Said:
    return Said(
        "2026-11-29T12:00:00+00:00", "sign", "issuing-1", "crl", "ab", "uid:0", {"n": number}
    )


@contextmanager
def opened(path: Path, known: End = EMPTY) -> Iterator[SigningLog]:
    log = SigningLog(path)
    log.open(known)
    with closing(log):
        yield log


def end_of(path: Path, known: End = EMPTY) -> End:
    with opened(path, known) as log:
        return log.end


def written(path: Path, batches: int = 3) -> list[End]:
    """Where it ended after each batch of two lines."""
    ends = []
    with opened(path) as log:
        for batch in range(1, batches + 1):
            log.append([said(batch), said(-batch)], batch)
            ends.append(log.end)
    return ends


def test_lines_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    ends = written(path)
    lines = [line for line, _ in verified(path.read_bytes().splitlines())]
    assert [line.seq for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line.batch for line in lines] == [1, 1, 2, 2, 3, 3]
    assert end_of(path, ends[-1]) == ends[-1]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_written_and_not_remembered_is_one_batch_at_most(tmp_path: Path) -> None:
    """The process ended between the two; of an older record more is missing."""
    path = tmp_path / "log"
    ends = written(path)
    assert end_of(path, ends[1]) == ends[2]
    with pytest.raises(SignerStateError, match="put back by an older one"):
        end_of(path, ends[0])
    with pytest.raises(SignerStateError, match="put back by an older one"):
        end_of(path)


def _cut(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _without_one(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def _swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def _changed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b"uid:0", b"uid:7"), *lines[3:]]


def _blank(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b":", b": ", 1), *lines[3:]]


def _replaced(lines: list[bytes]) -> list[bytes]:
    return []


def _last_changed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].replace(b"uid:0", b"uid:7")]


def _without_the_last_but_one(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-2], lines[-1]]


@pytest.mark.parametrize("spoil", [_cut, _last_changed, _without_the_last_but_one, _replaced])
def test_a_log_whose_end_was_touched_is_not_gone_on_with(
    tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = tmp_path / "log"
    end = written(path)[-1]
    path.write_bytes(b"".join(line + b"\n" for line in spoil(path.read_bytes().splitlines())))
    with pytest.raises(SignerStateError):
        end_of(path, end)


@pytest.mark.parametrize("spoil", [_without_one, _swapped, _changed, _blank])
def test_who_reads_all_of_it_finds_what_was_touched(
    tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = tmp_path / "log"
    written(path)
    lines = path.read_bytes().splitlines()
    assert len(list(verified(lines))) == 6
    with pytest.raises(DamagedLog, match=r"line [1234]: "):
        list(verified(spoil(lines)))


def test_a_torn_line_is_cut_off_where_nothing_was_signed_for_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    ends = written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with opened(path, ends[1]) as log:
        assert log.end.seq == 5
        log.append([said(9)], 3)
    assert [line.seq for line, _ in verified(path.read_bytes().splitlines())] == [*range(1, 7)]
    path.write_bytes(whole[:-10])
    with pytest.raises(SignerStateError):
        end_of(path, ends[2])


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"

    def full(_: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    def torn(_: int) -> None:
        raise OSError(5, "Input/output error")

    with opened(path) as log:
        log.append([said(1)], 1)
        before = path.read_bytes(), log.end
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(SignerStateError, match="No space left"):
                log.append([said(2)], 2)
        assert (path.read_bytes(), log.end) == before
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", torn)
            with pytest.raises(SignerStateError, match="Input/output"):
                log.append([said(2)], 2)
        with pytest.raises(SignerStateError, match="not known"):
            log.append([said(2)], 2)


def test_an_append_is_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        flushed.append((tmp_path / "log").read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    with opened(tmp_path / "log") as log:
        log.append([said(1)], 1)
    assert flushed == [(tmp_path / "log").read_bytes()]


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_line_or_damaged(data: bytes) -> None:
    with pytest.raises(DamagedLog):
        parse_line(data)


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    line=st.builds(
        Line,
        st.integers(0, 2**53),
        texts,
        st.integers(0, 2**53),
        *[texts] * 5,
        st.dictionaries(texts, texts | st.integers(-(2**53), 2**53), max_size=3),
        texts,
    )
)
def test_a_line_is_read_as_it_was_written(line: Line) -> None:
    assert parse_line(line.to_bytes()) == line
