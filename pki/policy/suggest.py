"""Suggestions: the registration entry that would let a caller in who is not, as narrow as is sensible."""

from collections.abc import Collection

from pki.issuing.csr import IssuanceRequest
from pki.policy.candidates import grants_by_default
from pki.policy.entry import RegistrationEntry
from pki.policy.id_template import IdTemplate
from pki.policy.selector import Selector
from pki.spiffe import NotASpiffeId
from pki.svid.names import IPAddress


def telling(selectors: Collection[Selector]) -> frozenset[Selector]:
    """Those by which an entry should know the caller again: a pod's namespace and service account, else a service's
    unit and user, else the image of a container and its user, else the user, else its ID, else its token."""
    namespace, account = (_of(kind, selectors) for kind in ("k8s:ns", "k8s:sa"))
    if namespace and account:
        return namespace | account
    units = [s for s in selectors if s.kind == "systemd:unit" and _is_service(s.value)]
    if units:
        return frozenset(units) | _of("unix:uid", selectors)
    if image := _of("docker:image_id", selectors):
        return image | _of("unix:uid", selectors)
    for kind in ("unix:user", "unix:uid", "x509", "token"):
        if found := _of(kind, selectors):
            return found
    return frozenset(selectors)


def suggested(
    request: IssuanceRequest, selectors: Collection[Selector]
) -> RegistrationEntry | None:
    """The entry that buys ``request`` for that caller, with an empty id; None where none can.

    None is for who showed nothing, and for an ID that no entry buys.
    """
    try:
        literal = IdTemplate.parse(str(request.spiffe_id), request.spiffe_id.trust_domain)
    except NotASpiffeId:
        return None
    chosen = telling(selectors)
    if not chosen:
        return None
    return RegistrationEntry("", chosen, literal, *_extra(request))


def _extra(request: IssuanceRequest) -> tuple[tuple[str, ...], tuple[IPAddress, ...]]:
    """The names that do not come by themselves."""
    own = request.spiffe_id
    return (
        tuple(name for name in request.dns_names if not grants_by_default(own, name)),
        tuple(name for name in request.ip_addresses if not grants_by_default(own, name)),
    )


def _of(kind: str, selectors: Collection[Selector]) -> frozenset[Selector]:
    return frozenset(selector for selector in selectors if selector.kind == kind)


def _is_service(unit: str) -> bool:
    """Not a login's scope, and not the manager in which all of a user's own services run."""
    return unit.endswith(".service") and not unit.startswith("user@")
