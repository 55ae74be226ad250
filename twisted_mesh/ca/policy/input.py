"""What the policy is told of a request that an entry has let through: the documented input, filled by the CA.

An agent's request for a workload is the agent's: it is the principal, and the selectors are those that it states.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from pki.issuing.csr import IssuanceRequest
from pki.keys import KeyAlgorithm
from pki.policy.entry import RegistrationEntry
from pki.policy.policy import Grant
from pki.policy.principal import Kind, Principal
from pki.policy.selector import Selector
from pki.rules.facts import (
    EntryFacts,
    Facts,
    PrincipalFacts,
    RequestFacts,
    RuleAction,
    SourceFacts,
)
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from twisted_mesh.ca.policy.source import Source
from twisted_mesh.runtime.clock import Now

#: What is asked for, as the input has it.
CERTIFICATE, TOKEN = "x509", "jwt"


def input_of(  # noqa: PLR0917
    principal: Principal,
    request: IssuanceRequest,
    granted: Grant,
    entry: RegistrationEntry | None,
    source: Source,
    now: Now,
    *,
    stated: frozenset[Selector] | None = None,
) -> Facts:
    """Of a certificate that ``entry`` buys; None where an administrator needs none."""
    is_renewal = stated is None and principal.spiffe_id == request.spiffe_id
    return Facts(
        action=(RuleAction.RENEW if is_renewal else RuleAction.ISSUE).value,
        principal=_principal(principal),
        selectors=_texts(principal.selectors if stated is None else stated),
        request=RequestFacts(
            kind=CERTIFICATE,
            spiffe_id=str(request.spiffe_id),
            trust_domain=str(request.spiffe_id.trust_domain),
            path=request.spiffe_id.path,
            dns_names=request.dns_names,
            ip_addresses=tuple(map(str, request.ip_addresses)),
            ttl=_seconds(granted.lifetime),
            key_algorithm=str(KeyAlgorithm.of(request.public_key) or ""),
            common_name=granted.common_name,
        ),
        entry=_entry(entry),
        time=now(),
        source=_source(source),
    )


def token_input_of(  # noqa: PLR0917
    principal: Principal,
    entry: RegistrationEntry,
    selectors: frozenset[Selector],
    spiffe_id: SpiffeId,
    audience: Sequence[str],
    lifetime: timedelta,
    source: Source,
    now: Now,
) -> Facts:
    """Of a JWT-SVID that ``entry`` buys a workload of these selectors."""
    return Facts(
        action=RuleAction.ISSUE_JWT.value,
        principal=_principal(principal),
        selectors=_texts(selectors),
        request=RequestFacts(
            kind=TOKEN,
            spiffe_id=str(spiffe_id),
            trust_domain=str(spiffe_id.trust_domain),
            path=spiffe_id.path,
            ttl=_seconds(lifetime),
            audience=tuple(audience),
        ),
        entry=_entry(entry),
        time=now(),
        source=_source(source),
    )


def _principal(principal: Principal) -> PrincipalFacts:
    known = principal.spiffe_id
    return PrincipalFacts(
        kind=principal.kind.value,
        id=str(known or ""),
        trust_domain=str(known.trust_domain) if known is not None else "",
        path=known.path if known is not None else "",
        proof=principal.proof,
        serial=serial_hex(principal.serial) if principal.serial is not None else "",
        agent=(known.agent or "") if known is not None else "",
        administrator=principal.kind is Kind.ADMINISTRATOR,
    )


def _entry(entry: RegistrationEntry | None) -> EntryFacts:
    if entry is None:
        return EntryFacts()
    return EntryFacts(
        id=entry.id,
        selectors=_texts(entry.selectors),
        spiffe_id=str(entry.spiffe_id),
        parent=str(entry.parent or ""),
        comment=entry.comment,
        hint=entry.hint,
    )


def _source(source: Source) -> SourceFacts:
    return SourceFacts(source.address, source.port, source.transport.value)


def _texts(selectors: Iterable[Selector]) -> tuple[str, ...]:
    return tuple(map(str, sorted(selectors)))


def _seconds(lifetime: timedelta) -> int:
    return int(lifetime.total_seconds())
