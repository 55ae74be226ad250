"""The limit of open files is raised where it may be, and told where it may not."""

import resource
import subprocess
import sys

import pytest

from twisted_mesh.runtime.open_files import too_few


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        pytest.param(7, 1024, [(32, 1024)], id="raised"),
        pytest.param(7, resource.RLIM_INFINITY, [(32, resource.RLIM_INFINITY)], id="no limit"),
        pytest.param(32, 32, [], id="enough"),
    ],
)
def test_a_low_limit_is_raised_where_it_may_be(
    soft: int, hard: int, raised: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    assert too_few(32) is None
    assert asked == raised


def test_a_limit_that_may_not_be_raised_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (7, 7))
    assert (too_few(32) or "").startswith(
        "this process may have 7 files open at most, and needs 32"
    )


def test_no_file_gets_the_number_of_a_stream_that_is_closed() -> None:
    code = (
        "import os\n"
        "from twisted_mesh.runtime.open_files import hold_the_standard_ones\n"
        "os.close(0), os.close(1)\n"
        "hold_the_standard_ones()\n"
        "taken = os.open('/dev/zero', os.O_RDONLY)\n"
        "sys.exit(taken <= 2)\n"
    )
    assert subprocess.run([sys.executable, "-c", "import sys\n" + code]).returncode == 0
