"""The CA's API over HTTP: each request is admitted, and answered by its route."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from pki.errors import PkiError, discreet
from pki.policy.policy import Forbidden, NoProof
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.ca import meters
from twisted_mesh.ca.api.admission import Arrived
from twisted_mesh.ca.api.authentication import Authenticator
from twisted_mesh.ca.api.request import refuse_browsers
from twisted_mesh.ca.api.resource import AnsweringResource
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.api.routing import action_of, matched, methods_of, route_of
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.rate_limit import LimitedLog, Rate, RateLimited
from twisted_mesh.runtime.log import logger, reasons

_log = logger("ca")
#: Lines of the log for refused requests.
_LOGGED = Rate(20, 20)


class CaApi(AnsweringResource):
    """All of the CA's HTTP, for one listener: its ``authenticator`` says who its callers are.

    ``guards_browsers`` is for the plaintext port: a web page that the user looks at must not be
    able to call it.
    """

    bug_text = "the CA has met a bug of its own; its log has the details"

    def __init__(
        self,
        ca: CaParts,
        authenticator: Authenticator,
        attestors: Attestors,
        *,
        guards_browsers: bool = False,
        throttle: Throttle | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.ca = ca
        self.authenticator = authenticator
        self.attestors = attestors
        self.guards_browsers = guards_browsers
        self.throttle = throttle
        self._refusals = LimitedLog(_log, _LOGGED, seconds, _count_refusals)

    async def _reply(self, request: SiteRequest) -> Answer:
        if self.guards_browsers:
            refuse_browsers(request)
        arrived = Arrived.on(request, self.authenticator)
        found = matched(request)
        try:
            # Before anything else: also whoever asks for what there is not can ask too often.
            charged = arrived.charge(self.throttle, action_of(found))
            route, rest = route_of(request, found)
            known = await charged.attest(self.attestors, self.ca.entries.lets_in, route.proving)
            call = known.permit(route.action).read(rest)
            return await route.handler(self.ca, call)
        except (NoProof, Forbidden, RateLimited) as error:
            self.ca.log.refused(error.code, arrived.account.proof)
            raise

    def _refused(
        self, request: SiteRequest, status: HTTPStatus, error: PkiError
    ) -> Mapping[str, str]:
        meters.count_refused(error.code)
        self._refusals.warn(
            "{method} {path} answered {status}: {reasons}",
            event="request-refused",
            method=request.method.decode("ascii", "replace"),
            path=discreet(request.path.decode("ascii", "replace"), 200),
            status=int(status),
            codes=error.code,
            reasons=reasons(error.problems),
        )
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return {"allow": ", ".join(methods_of(request))}
        return {}


def _count_refusals(untold: int) -> None:
    _log.warn("{untold} more refusals were only counted", event="refusals-untold", untold=untold)
