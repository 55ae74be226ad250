"""Ten thousand open connections of one certificate end soon after it is revoked, and three thousand that come back."""

import resource
from pathlib import Path

import pytest

from tests.bench.revocation_many import of_one_certificate

#: Of the server's processor time, which the other work of the test's machine stretches too: 2.7 s were seen beside
#: it, and more than 10 while each verdict was made anew. What it takes alone is for the bench to say.
_SECONDS = 5.0


# A socket that is reset while the standard library wraps it is left to the collector by it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.soak
@pytest.mark.parametrize(
    ("count", "comes_back"),
    [(3_000, True), pytest.param(10_000, False, marks=pytest.mark.endurance)],
)
def test_all_of_one_certificate_are_cut_and_none_is_let_in_again(
    tmp_path: Path, count: int, comes_back: bool
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count + 500:
        pytest.skip(f"ulimit -n is {soft}")
    times, crowd = of_one_certificate(tmp_path, count, comes_back=comes_back)
    assert len(times) == count
    assert crowd.let_in == 0
    assert crowd.server_seconds < _SECONDS
