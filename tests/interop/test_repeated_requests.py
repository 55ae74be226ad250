"""Requests that are repeated with an Idempotency-Key: after a lost answer, at the same time, over a restart."""

import json
import threading
from http.client import HTTPConnection
from typing import Any

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.interop.house import House
from tests.interop.wires import talk

ID = "spiffe://mesh.local/service/repeated"


def body() -> str:
    csr = build_csr(MemoryKey.generate(KeyAlgorithm.EC_P256), SpiffeId.parse(ID)).decode()
    return json.dumps({"csr": csr, "requested_id": ID})


def ask(house: House, sent: str, key: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", house.plain_port, timeout=30)
    headers = {"content-type": "application/json", "idempotency-key": key}
    connection.request("POST", "/api/v1/sign", sent, {**headers, "host": "localhost"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def bought(house: House, key: str) -> int:
    listed = house.ask("plain", f"/api/v1/certificates?spiffe_id={ID}&limit=1000").json
    return len(listed["certificates"])


def test_an_answer_that_was_lost_comes_again(shared: House) -> None:
    sent, before = body(), bought(shared, "lost")
    head = (
        "POST /api/v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: lost\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    talk(shared.plain_port, (head + sent).encode())
    first, second = (ask(shared, sent, "lost") for _ in range(2))
    assert first == second
    assert first[0] == 201
    assert bought(shared, "lost") == before + 1


def test_many_at_once_buy_one_certificate(shared: House) -> None:
    sent, before = body(), bought(shared, "crowd")
    answers: list[tuple[int, Any]] = []
    crowd = [
        threading.Thread(target=lambda: answers.append(ask(shared, sent, "crowd")))
        for _ in range(30)
    ]
    for caller in crowd:
        caller.start()
    for caller in crowd:
        caller.join()
    assert {status for status, _ in answers} == {201}
    assert len({told["serial"] for _, told in answers}) == 1
    assert bought(shared, "crowd") == before + 1


@pytest.mark.slow
def test_a_restart_forgets_no_request(house: House) -> None:
    sent = body()
    house.start_ca("--insecure-http", "0")
    first = ask(house, sent, "over a restart")
    assert house.ca.stop(9) == -9
    house.processes.clear()
    house.start_ca("--insecure-http", "0")
    assert ask(house, sent, "over a restart") == first
    assert first[0] == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\xe9"])
def test_a_key_that_is_none_is_refused(shared: House, key: str) -> None:
    status, told = ask(shared, body(), key)
    assert status == 400
    assert "Idempotency-Key" in told["detail"]
