"""Which route a request is for."""

from collections import defaultdict
from http import HTTPStatus

from pki.codes import Code
from pki.policy.policy import Action
from twisted_mesh.ca.api.request import path_of, refuse_other_media
from twisted_mesh.ca.api.route import Route
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.http.json import BadRequest
from twisted_mesh.http.request import SiteRequest

#: Every path, with its methods.
_PATHS: dict[str, set[str]] = defaultdict(set)
for _method, _path in ROUTES:
    _PATHS[_path].add(_method)
#: Those whose ``*`` stands for all that follows, slashes too.
_DEEP = tuple(path for (_, path), route in ROUTES.items() if route.is_deep)


class NoSuchRoute(BadRequest):
    """There is nothing at this path."""

    code = Code.NOT_FOUND


class WrongMethod(BadRequest):
    """The path is known, and this is not done to it."""

    code = Code.METHOD_NOT_ALLOWED


#: Method, path as the table has it, and what its ``*`` stands for; the path is empty where there is none.
Matched = tuple[str, str, str]


def matched(request: SiteRequest) -> Matched:
    """What is asked for."""
    method, path = request.method.decode("ascii", "replace"), path_of(request)
    if path in _PATHS:
        return "GET" if method == "HEAD" else method, path, ""
    above, _, rest = path.rpartition("/")
    deep = (
        (known, path.removeprefix(known[:-1])) for known in _DEEP if path.startswith(known[:-1])
    )
    for known, found in ((f"{above}/*", rest), *deep):
        if known in _PATHS and found:
            return "GET" if method == "HEAD" else method, known, found
    return method, "", ""


def methods_of(request: SiteRequest) -> tuple[str, ...]:
    """What can be done to its path."""
    _, path, _ = matched(request)
    return tuple(sorted(_PATHS[path])) if path else ()


def action_of(found: Matched) -> Action | None:
    """What would be done; None where there is nothing to be asked."""
    method, path, _ = found
    route = ROUTES.get((method, path))
    return route.action if route else None


def route_of(request: SiteRequest, found: Matched) -> tuple[Route, str]:
    """The route of ``request``, and what its path's ``*`` stands for.

    Raises :class:`NoSuchRoute`, :class:`WrongMethod`, :class:`OtherMedia`.
    """
    method, path, rest = found
    if not path:
        raise NoSuchRoute(
            HTTPStatus.NOT_FOUND, "there is nothing at this path: the API is below /api/v1/"
        )
    route = ROUTES.get((method, path))
    if route is None:
        raise WrongMethod(HTTPStatus.METHOD_NOT_ALLOWED, f"{method[:20]} is not done to {path}")
    if method == "POST":
        refuse_other_media(request, route.media)
    return route, rest
