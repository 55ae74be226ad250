"""Output that is closed, full or no longer read: no traceback, and the status that COMMANDS.md names."""

import os
import subprocess

import pytest

from tests.interop.house import House
from tests.running import BIN, PATIENCE

PROGRAMS = ("mesh-ca", "mesh-server", "mesh-client", "mesh-ctl", "pki-inspect")
_LOST = "the output cannot be written (No space left on device): free some space\n"
_BELOW = "tests/twisted_mesh/cli/test_program.py::test_a_failure_is_a_status_and_a_sentence"


def shell(line: str, house: House) -> subprocess.CompletedProcess[str]:
    """A line as bash runs it; its status is that of the first program in it."""
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        cwd=house.home,
        env={**os.environ, **house.env, "PATH": f"{BIN}:{os.environ['PATH']}"},
    )


@pytest.mark.interop(_BELOW)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        pytest.param(">&-", 0, "", id="closed"),
        pytest.param(">&- 2>&-", 0, "", id="both closed"),
        pytest.param("<&- >&- 2>&-", 0, "", id="all closed"),
        pytest.param(">/dev/full", 2, _LOST, id="full"),
        pytest.param(">/dev/full 2>/dev/full", 2, "", id="both full"),
    ],
)
def test_lost_output_of_help_has_its_status(
    house: House, program: str, where: str, status: int, said: str
) -> None:
    done = shell(f"{program} --help {where}", house)
    assert (done.returncode, done.stderr) == (status, said and f"{program}: {said}")


@pytest.mark.interop(_BELOW)
@pytest.mark.parametrize("program", PROGRAMS)
def test_whoever_has_read_enough_hears_nothing_more(house: House, program: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [BIN / program, "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=house.home,
            env={**os.environ, **house.env},
            timeout=PATIENCE * 2,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.interop(_BELOW)
@pytest.mark.parametrize(
    ("where", "status"),
    [
        pytest.param(">&-", 0, id="closed"),
        pytest.param(">&- 2>&-", 0, id="both closed"),
        pytest.param(">/dev/full", 2, id="full"),
        pytest.param(">/dev/full 2>/dev/full", 2, id="both full"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        *("mesh-ctl ca show", "mesh-ctl ca show --format json", "mesh-ctl cert list"),
        *(
            "mesh-ctl doctor --format json",
            "mesh-ctl token list --format json",
            "mesh-ctl entry list",
        ),
        *("pki-inspect show state/ca/root.crt", "pki-inspect show --format json state/ca/root.crt"),
    ],
)
def test_lost_results_have_their_status(
    shared: House, command: str, where: str, status: int
) -> None:
    assert (
        shared.ctl("token", "create", "--spiffe-id", "spiffe://mesh.local/service/any").returncode
        == 0
    )
    done = shell(f"{command} {where}", shared)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr


@pytest.mark.interop(_BELOW)
@pytest.mark.parametrize(
    ("options", "status"),
    [
        pytest.param("--format json >&-", 0, id="JSON, closed"),
        pytest.param("--format json >/dev/full", 2, id="JSON, full"),
        pytest.param("--format json >/dev/full 2>/dev/full", 2, id="JSON, both full"),
        # What it tells people is its log: the status is of the request.
        pytest.param(">/dev/full", 0, id="text, full"),
        pytest.param(">&- 2>&-", 0, id="text, both closed"),
    ],
)
def test_a_client_that_nobody_hears_has_asked(shared: House, options: str, status: int) -> None:
    done = shell(f"mesh-client --server {shared.server_url} {options}", shared)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr


@pytest.mark.interop(_BELOW)
@pytest.mark.parametrize(
    "where", [pytest.param(">&- 2>&-", id="closed"), pytest.param(">/dev/full 2>&1", id="full")]
)
def test_a_service_that_nobody_hears_serves(house: House, where: str) -> None:
    line = f"mesh-ca --port 0 --root-key ec-p256 {where} & ca=$!; "
    # The shell waits for no more than its child: either it answers, or it has ended.
    line += "until mesh-ctl ca show >shown 2>&1; do kill -0 $ca || exit 9; done; kill $ca; wait $ca"
    done = shell(f"{line}; exit $?", house)
    assert (done.returncode, done.stderr) == (0, "")
    assert (house.home / "shown").read_text()
