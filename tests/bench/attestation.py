"""Evidence of platforms: what it takes to judge one piece of it, and what an honest caller waits while forgers flood.

``python -m tests.bench.attestation DIRECTORY [SECONDS]`` measures the flood alone.
"""

import http.client
import json
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field, frozen

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.bench.meshes import MeshOnStage
from tests.bench.processes import LOAD_CORE, SERVER_CORE, pinned, stage
from tests.bench.tables import Table
from tests.running import BIN, PATIENCE
from tests.twisted_mesh.attest.api_server import ApiServer, written
from tests.twisted_mesh.attest.api_server import serving as api_serving
from tests.twisted_mesh.attest.cases import Case
from tests.twisted_mesh.attest.issuers import good_claims, jwk, jwks, rsa_key, signed
from tests.twisted_mesh.attest.issuers import shown as evidence
from tests.twisted_mesh.attest.test_k8s import attestor as k8s_attestor
from tests.twisted_mesh.attest.token_cases import TOKEN_KINDS, token_case
from tests.twisted_mesh.evidence.metadata_service import MetadataService, send, serving
from tests.twisted_mesh.federation.hostile import reactor
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import declare_kinds

_WARM, _COLD = 400, 20
#: A minute's worth of forged evidence, as many as the CA is to bear.
_FORGED_A_MINUTE = 10_000
#: Threads: each waits for its answers.
_FORGERS = 8
_FLOOD_SECONDS = 15.0
_PERIOD = 0.1
"""Seconds between two questions of the honest caller."""
_WEB = "spiffe://mesh.local/service/web"


@frozen
class Contestant:
    """One kind of evidence."""

    attestor: Callable[[], Any]
    """One that has asked nobody yet."""
    gather: Callable[[Any], Evidence]
    """Fresh evidence for it; what that takes is not measured."""


def a_token(kind: str, stack: ExitStack) -> Contestant:
    """Of an issuer on this machine, who is asked for its keys over plain http; its clock stands still."""
    service = MetadataService()
    service.misbehave = lambda request: send(request, 200, jwks(jwk(rsa_key(), "one")))
    stack.enter_context(serving(service))
    made: list[Callable[[], Evidence]] = []

    def fresh() -> Any:
        attestor, gather, _ = token_case(kind, f"{service.url}/keys", reactor())
        made[:] = [gather]
        return attestor

    return Contestant(fresh, lambda _: made[0]())


def by_review(stack: ExitStack) -> Contestant:
    """A pod's token, which an API server on this machine is asked about."""
    directory = Path(stack.enter_context(TemporaryDirectory()))
    api = stack.enter_context(api_serving(ApiServer()))
    tables = written(api, directory)
    return Contestant(lambda: k8s_attestor(tables), lambda _: evidence("k8s", api.token()))


def of_suite(kind: str, stack: ExitStack) -> Contestant:
    """What asks nobody, as the conformance suite has it."""
    made: list[Case] = []

    def fresh() -> Any:
        made[:] = [import_module(f"tests.twisted_mesh.attest.{kind}_case").make(stack)]
        return made[0].attestor

    return Contestant(fresh, lambda _: made[0].good)


#: One line each.
KINDS: Mapping[str, Callable[[ExitStack], Contestant]] = {
    "k8s, TokenReview": by_review,
    "k8s, by keys alone": partial(of_suite, "k8s"),
    **{kind: partial(of_suite, kind) for kind in ("aws", "x509pop")},
    **{f"{kind}, JWKS": partial(a_token, kind) for kind in TOKEN_KINDS},
}


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Each kind in this process, and then the flood at a CA of its own."""
    declare_kinds()
    rows = [{**_row(kind, make, say)} for kind, make in KINDS.items()]
    for name, waits, statuses in floods(home, _FLOOD_SECONDS, say):
        rows.append(
            {
                "evidence": name,
                "warm, ms": round(statistics.median(waits), 2),
                "warm p99, ms": round(_p99(waits), 2),
                "cold, ms": None,
                "cold p99, ms": None,
                "answers": json.dumps(statuses),
            }
        )
    return Table(
        "attestation",
        "evidence of platforms: judged, and asked for by an honest caller",
        tuple(rows),
        (
            "A kind by itself: wall time of one attestation in the reactor; cold: with keys that are fetched for it,",
            f"from this machine. The caller: a new connection in TLS, a CSR and a token, each {_PERIOD:g} s, at a CA",
            "without a limit of rates, first alone, then beside forged tokens with the name of the right key.",
        ),
    )


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _row(
    kind: str, make: Callable[[ExitStack], Contestant], say: Callable[[str], None]
) -> dict[str, float | int | str | None]:
    say(kind)
    with ExitStack() as stack:
        contestant = make(stack)
        cold = []
        for _ in range(_COLD):
            attestor = contestant.attestor()
            cold.append(_took(attestor, contestant.gather(attestor)))
        warm = [_took(attestor, contestant.gather(attestor)) for _ in range(_WARM)]
    return {
        "evidence": kind,
        "warm, ms": round(statistics.median(warm), 3),
        "warm p99, ms": round(_p99(warm), 3),
        "cold, ms": round(statistics.median(cold), 2),
        "cold p99, ms": round(_p99(cold), 2),
        "answers": "",
    }


def _took(attestor: Any, evidence: Evidence) -> float:
    """In milliseconds."""
    began = time.perf_counter()
    assert run(attestor.attest(evidence)) is not None
    return (time.perf_counter() - began) * 1e3


# The flood


def floods(
    home: Path, seconds: float, say: Callable[[str], None]
) -> Iterator[tuple[str, list[float], dict[str, int]]]:
    """What the honest caller waited, in milliseconds, and how everybody was answered."""
    service = MetadataService()

    def answer(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, jwks(jwk(rsa_key(), "one")))

    service.misbehave = answer
    with serving(service), stage(home) as on, pinned(LOAD_CORE):
        mesh = MeshOnStage(on)
        attestors = home / "attestors.toml"
        attestors.write_text(
            f'[oidc.ci]\nissuer = "{service.url}"\njwks_url = "{service.url}/keys"\n'
            'claims = { repository = "org/*" }\nselectors = ["repository"]\n'
        )
        attestors.chmod(0o600)
        ca = mesh.start_ca("--attestors", str(attestors), core=SERVER_CORE)
        port = int(ca.wait_for(r"listening on https://[^:]+:([0-9]+)")[1])
        entry = ("--selector", "oidc:ci:repository:org/api", "--spiffe-id", _WEB)
        made = on.start("mesh-ctl", BIN / "mesh-ctl", "entry", "create", *entry, env=mesh.env)
        made.process.wait(PATIENCE)
        callers = Callers(port, service.url)
        callers.honest(3)
        for forged in (0, _FORGED_A_MINUTE):
            say(f"{forged:,} forged a minute")
            with callers.flooding(forged):
                before = ca.cpu_seconds()
                began = time.monotonic()
                waits = callers.honest(int(seconds / _PERIOD))
                took = time.monotonic() - began
                share = ((ca.cpu_seconds() or 0) - (before or 0)) / took
            told = {**callers.statuses, "CA, % of a core": round(share * 100)}
            callers.statuses.clear()
            came = round(sum(n for who, n in told.items() if who.startswith("forged")) * 60 / took)
            yield f"honest caller, beside {came:,} forged a minute", waits, told


@define(eq=False)
class Callers:
    """An honest one, and forgers, at one CA."""

    port: int
    issuer: str
    statuses: "Counter[str]" = field(factory=Counter)
    _context: ssl.SSLContext = field(init=False)
    _csr: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        key = MemoryKey.generate(KeyAlgorithm.EC_P256)
        self._csr = build_csr(key, SpiffeId.parse(_WEB)).decode()

    def honest(self, times: int) -> list[float]:
        """Asks so often, at its times, however long each takes."""
        waits = []
        began = time.monotonic()
        for number in range(times):
            time.sleep(max(0.0, began + number * _PERIOD - time.monotonic()))
            body = self._body(rsa_key())
            started = time.perf_counter()
            connection = self._connection()
            self.statuses[f"honest {self._ask(connection, body)}"] += 1
            connection.close()
            waits.append((time.perf_counter() - started) * 1e3)
        return waits

    @contextmanager
    def flooding(self, a_minute: int) -> Iterator[None]:
        """Threads ask with forged tokens, on connections that they keep as long as the CA lets them."""
        over = threading.Event()
        bodies = [self._body(rsa_key("two")) for _ in range(50)] if a_minute else []
        threads = [
            threading.Thread(target=self._flood, args=(a_minute / 60 / _FORGERS, bodies, over))
            for _ in range(_FORGERS if a_minute else 0)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _flood(self, rate: float, bodies: Sequence[bytes], over: threading.Event) -> None:
        connection, began, sent = self._connection(), time.monotonic(), 0
        while not over.wait(max(0.0, began + sent / rate - time.monotonic())):
            try:
                self.statuses[f"forged {self._ask(connection, bodies[sent % len(bodies)])}"] += 1
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = self._connection()
            sent += 1
        connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, context=self._context
        )

    def _ask(self, connection: http.client.HTTPSConnection, body: bytes) -> int:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/api/v1/sign", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def _body(self, key: Any) -> bytes:
        now = int(time.time())
        claims = good_claims(
            iss=self.issuer, aud="spiffe://mesh.local", iat=now, nbf=now, exp=now + 600
        )
        token = signed({**claims, "repository": "org/api", "jti": str(time.monotonic_ns())}, key)
        attestation = {"kind": "oidc", "data": token}
        said = {"csr": self._csr, "requested_id": _WEB, "attestation": attestation}
        return json.dumps(said).encode()


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    for found in floods(where, float(sys.argv[2]) if len(sys.argv) > 2 else 10.0, print):
        print(found[0], statistics.median(found[1]), max(found[1]), found[2])
