"""The routes of health: what administrators read of it, what supervisors ask, what monitoring collects."""

from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pki.codes import Code
from twisted_mesh.api.messages import Alive, Health, HealthCheck, Ready
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer, problem_answer
from twisted_mesh.ca.health import Standing
from twisted_mesh.ca.parts import CaParts


async def health(ca: CaParts, call: Call) -> Answer:
    """Every check, as a :class:`Health`."""
    checks = await ca.health.examine()
    worst = max((check.standing for check in checks), default=Standing.OK)
    shown = [HealthCheck(c.name, c.standing.word, c.detail, c.remedy) for c in checks]
    return json_answer(Health(worst.word, shown))


async def liveness(ca: CaParts, call: Call) -> Answer:
    """That the process answers, whatever else is wrong."""
    return json_answer(Alive())


async def readiness(ca: CaParts, call: Call) -> Answer:
    """Whether the CA can issue and revoke; where it cannot, status 503 and every check that failed."""
    failing = [c for c in await ca.health.examine() if c.standing is Standing.FAIL]
    if not failing:
        return json_answer(Ready())
    problems = [check.problem for check in failing]
    detail = "; ".join(map(str, problems))
    return problem_answer(HTTPStatus.SERVICE_UNAVAILABLE, Code.NOT_READY, detail, problems)


async def metrics(ca: CaParts, call: Call) -> Answer:
    """All gauges and counters, as Prometheus reads them."""
    await ca.health.examine()  # the gauges show how that came out
    return Answer(generate_latest(), content_type=CONTENT_TYPE_LATEST)
