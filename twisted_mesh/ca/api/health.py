"""The routes of health: what administrators read of it, what supervisors ask, what monitoring collects."""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus

from msgspec import UNSET
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pki.codes import Code
from twisted_mesh.api.messages import Alive, Health, HealthCheck, Ready
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer, problem_answer
from twisted_mesh.ca.check import Check, Standing
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.status_site import Question


async def health(ca: CaParts, call: Call | None = None) -> Answer:
    """Every check, as a :class:`Health`."""
    checks = await ca.health.examine()
    worst = max((check.standing for check in checks), default=Standing.OK)
    return json_answer(Health(worst.word, [_shown(check) for check in checks]))


async def liveness(ca: CaParts, call: Call | None = None) -> Answer:
    """That the process answers, whatever else is wrong."""
    return json_answer(Alive())


async def readiness(ca: CaParts, call: Call | None = None) -> Answer:
    """Whether the CA can issue and revoke, and which checks did not come out well all the same.

    Where it cannot, status 503 and every check that failed.
    """
    checks = await ca.health.examine()
    failing = [c for c in checks if c.standing is Standing.FAIL and c.stops]
    if not failing:
        degraded = [_shown(c) for c in checks if c.standing is not Standing.OK]
        return json_answer(Ready(degraded=degraded or UNSET))
    problems = [check.problem for check in failing]
    detail = "; ".join(map(str, problems))
    return problem_answer(HTTPStatus.SERVICE_UNAVAILABLE, Code.NOT_READY, detail, problems)


async def metrics(ca: CaParts, call: Call | None = None) -> Answer:
    """All gauges and counters, as Prometheus reads them."""
    await ca.health.examine()  # the gauges show how that came out
    return Answer(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def questions(ca: CaParts) -> Mapping[str, Question]:
    """What whoever watches may ask, by its path: no caller matters to it, and nothing else is answered."""
    return {
        "/livez": partial(liveness, ca),
        "/readyz": partial(readiness, ca),
        "/metrics": partial(metrics, ca),
        "/api/v1/health": partial(health, ca),
    }


def _shown(check: Check) -> HealthCheck:
    return HealthCheck(check.name, check.standing.word, check.detail, check.remedy)
