"""What of a command line is a worker's too, and which numbers of workers there are."""

from pathlib import Path
from typing import Any

import pytest

from pki.errors import PkiError
from pki.policy.join_token import JoinToken
from tests.twisted_mesh.workers.test_seat import seat
from twisted_mesh.taps import proxy_options, server_options
from twisted_mesh.taps.worker_options import MOST_WORKERS, WorkerOptions

PROXY = ("--mode", "server", "--listen", "1", "--target", "localhost:1", "--allow-all")


def of_server(*words: str) -> WorkerOptions:
    options = server_options.Options()
    options.parseOptions(words)
    return options


def of_proxy(*words: str) -> WorkerOptions:
    options = proxy_options.Options()
    options.parseOptions([*PROXY, *words])
    return options


def test_a_worker_has_all_but_what_is_its_parents(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(JoinToken.generate().text)
    ca = ("--ca-url", "https://localhost:1", "--ca-fingerp", f"sha256:{'0' * 64}")
    options = of_server(
        *(*ca, "--join-token-f", str(token), "--status", "0", "--log-level=debug"),
        *("--worker=2", "--allow", "spiffe://a/b", "--allow=spiffe://a/c", "--max-c", "64"),
    )
    assert options.has_workers
    assert list(options.words_of_worker) == [
        "--ca-url=https://localhost:1",
        f"--ca-fingerprint=sha256:{'0' * 64}",
        "--allow=spiffe://a/b",
        "--allow=spiffe://a/c",
        "--max-connections=64",
    ]
    flags = of_proxy("--workers", "2", "--http")
    assert "--http" in flags.words_of_worker and "--allow-all" in flags.words_of_worker


def test_a_worker_is_no_parent_and_has_its_share(tmp_path: Path) -> None:
    options: Any = server_options.Options()
    options.sit_at(seat(2, 3))
    options.parseOptions(["--max-connections", "100", "--state-dir", str(tmp_path)])
    assert not options.has_workers
    assert options["max-connections"] == 33
    assert options["state-dir"] == tmp_path / "worker-2"
    carrying: Any = proxy_options.Options()
    carrying.sit_at(seat(1, 3))
    carrying.parseOptions([*PROXY, "--max-connections", "100"])
    assert carrying["listeners"][0].bounds.connections == 34


def test_files_count_as_the_parent_has_read_them(tmp_path: Path) -> None:
    rules = tmp_path / "allow"
    rules.write_text("spiffe://mesh.local/service/a\n")
    options: Any = proxy_options.Options()
    options.parseOptions([*PROXY[:-1], "--workers", "2", "--allow-file", str(rules)])
    assert options.texts == {"allow-file": b"spiffe://mesh.local/service/a\n"}
    rules.write_text("nonsense")
    assert options.text_of("allow-file") == b"spiffe://mesh.local/service/a\n"
    alone = server_options.Options()
    with pytest.raises(PkiError, match="line 1"):
        alone.parseOptions(["--allow-file", str(rules)])
        alone.read_allow_file()


def test_one_is_what_it_always_was() -> None:
    assert of_server()["workers"] == of_server("--workers", "1")["workers"] == 1
    assert of_server().texts is None
    assert of_server("--workers", str(MOST_WORKERS)).has_workers


@pytest.mark.parametrize("number", ["0", "00", "-1", "65", "10000", "two", "1.5", "", " 2", "٢"])
def test_what_is_no_number_of_workers_is_refused(number: str) -> None:
    with pytest.raises(SystemExit, match="it takes a number from 1, which is one process"):
        of_server(f"--workers={number}")
