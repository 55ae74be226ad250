"""Addresses of a Workload API, as people and the environment have them."""

import pytest

from twisted_mesh.workload.address import BadWorkloadAddress, WorkloadAddress


@pytest.mark.parametrize("text", ["unix:///run/a.sock", "unix:/run/a.sock", "UNIX:///run/a.sock"])
def test_a_whole_path_is_taken(text: str) -> None:
    found = WorkloadAddress.of_source(f"workload:{text}", {})
    assert found == WorkloadAddress("/run/a.sock")
    assert WorkloadAddress.parse(str(found)) == found


def test_the_environment_says_it_where_the_option_does_not() -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/b.sock"}
    assert WorkloadAddress.of_source("workload:", environ).path == "/run/b.sock"
    assert WorkloadAddress.of_source("workload:unix:///c", environ).path == "/c"


def test_what_is_percent_encoded_is_decoded() -> None:
    assert WorkloadAddress.parse("unix:///run/a%20b").path == "/run/a b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unix://run/a.sock", "unix:///run/a.sock"),
        ("unix:run/a.sock", "three slashes"),
        ("unix:///", "write unix:///PATH"),
        ("unix:///a?b", "and nothing else"),
        ("unix:///a#b", "and nothing else"),
        ("unix:///a%00b", "no path has"),
        ("unix:///" + "a" * 200, "name it by a shorter path"),
        ("tcp://127.0.0.1:8000", "over TCP nothing says which process asks"),
        ("/run/a.sock", "no address of a Workload API"),
        ("unix://[/a", "no address"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(BadWorkloadAddress, match="--source") as caught:
        WorkloadAddress.of_source(f"workload:{text}", {})
    assert said in str(caught.value)


def test_it_has_to_be_a_workload_api() -> None:
    with pytest.raises(BadWorkloadAddress, match="write workload:unix:///PATH"):
        WorkloadAddress.of_source("unix:///a", {})
    with pytest.raises(BadWorkloadAddress, match="SPIFFE_ENDPOINT_SOCKET, which is not set"):
        WorkloadAddress.of_source("workload:", {})
