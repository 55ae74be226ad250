"""What an agent has of roots that come and go, in the hands of its workloads: all of them processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from pki.svid.x509svid import certificates_pem
from tests.interop.house import House
from tests.interop.test_ctl_root import step
from tests.running import until
from tests.twisted_mesh.attest.processes import only_linux
from tests.twisted_mesh.workload.estate import Node, workload
from twisted_mesh.testing import MemoryCa

pytestmark = only_linux
OTHER = "other.example"
SIBLING = "tests/twisted_mesh/workload/test_workloads.py::"


@pytest.fixture
def node(house: House) -> Iterator[Node]:
    house.start_ca("--cert-duration", "4s")
    made = Node(house, "node", house.home / "node")
    made.join("--ttl", "4s")
    yield made


def digest(cert: x509.Certificate) -> str:
    return cert.fingerprint(SHA256()).hex()


def ctl(house: House, *words: str | Path) -> None:
    done = house.ctl(*map(str, words))
    assert done.returncode == 0, done.stderr


@pytest.mark.interop(
    f"{SIBLING}test_another_trust_domain_is_for_those_whose_entry_federates_with_it"
)
def test_a_federated_bundle_is_pushed_to_whose_entry_says_so_and_taken_away_with_the_relationship(
    node: Node, house: House
) -> None:
    root = MemoryCa(OTHER).root.certificate
    file = house.home / "other.pem"
    file.write_bytes(certificates_pem([root]))
    plain = node.entry("plain")
    with workload(node.socket, "again") as it:
        assert it.wait_for_id("plain")["federated"] == {}
        # Nobody answers there: what counts is what came with the file.
        ctl(
            house,
            *("federation", "add", OTHER, "--profile", "https_spiffe", "--bundle", file),
            *("--spiffe-id", f"spiffe://{OTHER}/mesh/ca", "--url", "https://127.0.0.1:1/bundle"),
        )
        node.entry("federating", "--federates-with", OTHER)
        told = it.wait_for(lambda told: bool(told.get("federated")))
        assert told["federated"] == {f"spiffe://{OTHER}": [digest(root)]}
        assert digest(root) not in [one for roots in told["roots"] for one in roots]
        ctl(house, "entry", "delete", plain, "--yes")
        ctl(house, "federation", "remove", OTHER, "--yes")
        it.wait_for(lambda told: told.get("federated") == {} and "ids" in told)


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_standing.py::"
    "test_what_workloads_hold_follows_the_path_that_the_ca_tells"
)
def test_a_workload_gets_the_path_to_the_new_root_at_once_and_its_leaf_stays(
    node: Node, house: House
) -> None:
    node.entry("web", "--ttl", "4s")
    with workload(node.socket, "again") as it:
        (old,) = it.wait_for_id("web")["roots"]
        step(house, "prepare", "--yes")
        both = it.wait_for(lambda told: len(told.get("roots", [[]])[0]) == 2)
        new = set(both["roots"][0]) - set(old)
        assert len(new) == 1
        step(house, "activate", "--force", "--yes")
        # One that lives for longer, by the new issuing CA: its leaf is to stay.
        node.entry("shop", "--ttl", "1h")
        shop = it.wait_for_id("shop")
        at = shop["ids"].index("spiffe://mesh.local/service/shop")
        serial, way = shop["serials"][at], shop["above"][at]
        until(lambda: house.ctl("ca", "root", "retire", "--dry-run").returncode == 0)
        step(house, "retire", "--yes")
        last = it.wait_for(
            lambda told: (
                all(set(roots) == new for roots in told.get("roots", [[]]))
                and way not in told["above"]
                and len(set(map(tuple, told["above"]))) == 1
            )
        )
        assert serial in last["serials"]
        assert len(last["ids"]) == 2
