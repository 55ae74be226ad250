"""A CA and its logs as processes: what is issued has their SCTs, and goes on, or does not, as logs come and go."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pki.ct.entry import parse_data_tile, signed_entry_of
from pki.ct.receipt import SctDemand
from pki.ct.sct import scts_of
from pki.issuing.csr import build_csr
from tests.authorities import BACKEND, key
from tests.ca_socket import CaSocket
from tests.interop.logged_mesh import LoggedMesh, logged_mesh
from tests.running import until

_CSR = build_csr(key(9), BACKEND).decode()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LoggedMesh]:
    with logged_mesh(tmp_path, 3) as made:
        yield made


def asked(place: LoggedMesh) -> tuple[HTTPResponse, Any]:
    """The answer to a request for a certificate."""
    body = json.dumps({"csr": _CSR, "requested_id": str(BACKEND)})
    with closing(CaSocket(place.mesh.socket)) as connection:
        connection.request("POST", "/api/v1/sign", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer, json.loads(answer.read())


def issued(place: LoggedMesh) -> list[x509.Certificate]:
    answer, told = asked(place)
    assert answer.status == 201, told
    return [
        x509.load_pem_x509_certificate(pem.encode())
        for pem in (told["certificate"], *told["chain"])
    ]


@pytest.mark.interop(
    "tests/twisted_mesh/ca/transparency/test_receipts.py"
    "::test_a_quorum_of_two_of_three_goes_on_without_one"
)
def test_what_is_issued_is_in_the_logs_and_survives_their_deaths(place: LoggedMesh) -> None:
    ca = place.start_ca("--ct-quorum", "2")
    leaf, issuer = issued(place)
    now = datetime.now(UTC)
    assert SctDemand(2, place.known).problems([leaf, issuer], now) == ()
    entry = signed_entry_of(leaf, issuer)
    for sct in scts_of(leaf):
        (log,) = [one for one in place.logs if one.entry.logs[0].log_id == sct.log_id]
        data = log.home / "state" / "ctlog" / "public" / "tile" / "data" / "000.p"
        tile = max(data.iterdir(), key=lambda path: int(path.name))
        assert sct.leaf_index is not None
        assert parse_data_tile(tile.read_bytes())[sct.leaf_index].signed == entry
    place.logs[0].kill()
    for _ in range(2):
        assert SctDemand(2, place.known).problems(issued(place), now) == ()
    place.logs[1].kill()
    answer, told = asked(place)
    assert (answer.status, told["code"]) == (503, "log-away")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert "nothing is issued" in place.mesh.ctl("doctor").stdout
    place.logs[1].start()
    until(lambda: asked(place)[0].status == 201, lambda: ca.text)
    assert "log-away" not in place.mesh.ctl("doctor").stdout
    assert ca.stop() == 0
    assert "Traceback" not in ca.text


@pytest.mark.interop(
    "tests/twisted_mesh/ca/transparency/test_receipts.py"
    "::test_without_enough_logs_it_is_issued_loudly_where_somebody_has_said_so"
)
def test_without_logs_it_is_issued_loudly_where_somebody_has_said_so(place: LoggedMesh) -> None:
    ca = place.start_ca("--ct-quorum", "3", "--ct-away", "issue")
    for log in place.logs:
        log.kill()
    assert scts_of(issued(place)[0]) == ()
    ca.wait_for(r"A certificate is issued with 0 SCTs where 3 are wanted \(--ct-away issue\)")
    assert "certificates are issued without enough SCTs" in place.mesh.ctl("doctor").stdout


@pytest.mark.interop(
    "tests/twisted_mesh/ca/transparency/test_transparency.py"
    "::test_a_ca_begins_with_no_fewer_than_endpoints_demand"
)
def test_a_start_with_fewer_than_endpoints_demand_is_refused(place: LoggedMesh) -> None:
    ca = place.start_ca("--ct-quorum", "2")
    ids = [
        json.loads(log.entry.to_bytes())["operators"][0]["tiled_logs"][0]["log_id"]
        for log in place.logs
    ]
    report = {
        "instance": "0" * 32,
        "connections": {},
        "require_sct": {"required": 2, "logs": ids},
    }
    with closing(CaSocket(place.mesh.socket)) as connection:
        connection.post("/api/v1/connections", report)
    assert ca.stop() == 0
    again = place.start_ca("--ct-quorum", "1", wait=False)
    again.wait_for(r"--ct-quorum is 1 of 3 logs, and 1 endpoint demands SCTs of up to 2 logs")
    assert again.wait() != 0
    assert place.start_ca("--ct-quorum", "2").stop() == 0
