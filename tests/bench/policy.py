"""Certificates issued with a policy and without one, in one run; and how long the rules alone take."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.rules.facts import Facts, RequestFacts, SourceFacts
from pki.rules.rules_file import read_rules
from pki.spiffe import SpiffeId
from tests.bench.meshes import CLIENT_ID, MeshOnStage
from tests.bench.processes import SERVER_CORE, Stage, stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.signatures import posting
from tests.bench.tables import Table, Value, beside, median

_WITHOUT = "mesh-ca, no policy"
#: How many rules, all of which are asked.
_RULES = (1, 10, 50)
_EVALUATIONS = 3000
_RULE = """
[[rule]]
name = "other-{number}"
effect = "deny"
on = ["issue"]
when = '''request.path.startsWith("/prod-{number}/") && !("k8s:ns:prod" in selectors)'''
"""
_ALLOW = """
version = 1
[[rule]]
name = "this-domain"
effect = "allow"
when = 'request.trust_domain == "mesh.local" && request.ttl <= 86400'
"""


def policy_of(rules: int) -> str:
    """A file of so many rules, of which one allows and the others do not hold."""
    return _ALLOW + "".join(_RULE.format(number=number) for number in range(rules - 1))


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    csr = build_csr(
        MemoryKey.generate(KeyAlgorithm.EC_P256), SpiffeId.parse(CLIENT_ID), ["localhost"]
    )
    body = json.dumps({"csr": csr.decode(), "requested_id": CLIENT_ID})
    evaluated = {rules: evaluation(rules) for rules in _RULES}
    with stage(home) as running:
        contestants = [_ca(running, rules, body) for rules in (0, *_RULES)]
        compete(contestants, rounds, seconds, say)
        rows: list[dict[str, Value]] = []
        for rules, contestant in zip((0, *_RULES), contestants, strict=True):
            half, most = evaluated.get(rules, (None, None))
            rows.append({**contestant.row("certificates"), "us a decision": half, "p99": most})
    return Table(
        "policy",
        "certificates signed over kept-alive HTTP connections, with a policy and without one",
        beside(rows, "CPU us each", _WITHOUT, f"CPU beside {_WITHOUT}"),
        (
            "us a decision: the rules alone, in a process of their own, median; every one of them is asked. The CPU of",
            "a certificate has also the input that is made, the line of the journal, and two facts of the audit log.",
            *busy(contestants),
        ),
    )


def evaluation(rules: int) -> tuple[float, float]:
    """Microseconds for one decision of so many rules: median and 99th percentile."""
    policy = read_rules({"policy.toml": policy_of(rules)})
    facts = Facts(
        selectors=("unix:uid:1000", "unix:gid:1000"),
        request=RequestFacts("x509", CLIENT_ID, "mesh.local", "/service/payment-worker", ttl=3600),
        source=SourceFacts("192.0.2.7", 4711, "tls"),
        time=datetime.now(UTC),
    )
    took = []
    for _ in range(_EVALUATIONS):
        began = time.perf_counter()
        assert policy.decide(facts).allowed
        took.append((time.perf_counter() - began) * 1e6)
    return median(took), quantiles(took, n=100)[-1]


def _ca(running: Stage, rules: int, body: str) -> Contestant:
    directory = running.home / f"rules-{rules}"
    directory.mkdir()
    mesh = MeshOnStage(Stage(directory, running.services))
    options = ["--store", "memory:", "--insecure-http", "0", "--quota", "1000000:1000000"]
    if rules:
        path = directory / "policy.toml"
        path.write_text(policy_of(rules))
        path.chmod(0o600)
        options += ["--policy", str(path)]
    ca = mesh.start_ca(*options, core=SERVER_CORE)
    port = int(ca.wait_for(r"at http://localhost:(\d+)")[1])
    name = f"mesh-ca, {rules} rule{'s' * (rules > 1)}" if rules else _WITHOUT
    return Contestant(name, ca, posting(port, "/api/v1/sign", body))
