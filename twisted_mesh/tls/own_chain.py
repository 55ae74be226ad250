"""Our own chain as the other side would judge it: looked at before it is shown, and whenever it is refused.

An alert is one of a few words, and of those that a certificate can earn most say next to nothing. What we find in
our own chain is said in their place; where we find nothing, what we know is said beside them.
"""

from attrs import evolve
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from pki.serial import serial_pairs
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import X509Svid, issuer_of, subject_of
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.tls.alerts import OwnChainRefused, RefusedByPeer, alert_of, problem_of
from twisted_mesh.tls.security import Security

#: What depends on the roots that the other side holds, and not on those that we do.
_NOT_OURS_TO_SAY = {Code.UNKNOWN_AUTHORITY, Code.UNKNOWN_TRUST_DOMAIN}
_FRESH = "request a fresh one; if this one is fresh, compare the two machines' clocks"
_CURES = {
    Code.EXPIRED: _FRESH,
    Code.NOT_YET_VALID: "compare the two machines' clocks",
    Code.REVOKED: "ask an administrator why; if it was in error, request a new one",
    Code.INCOMPLETE_CHAIN: "put the issuing CA's certificate behind the leaf, as mesh-client --export writes them",
}


def own_problem(security: Security, *, by_our_roots: bool = False) -> Problem | None:
    """What any other side would object to the certificate that we show, by all that we know; None if nothing.

    ``by_our_roots``: also that it does not lead to one of those that we hold, whatever the other side does.
    """
    shown = security.contexts.shown
    if shown is None:
        return None
    verdict = security.judge.on_ours(shown.chain)
    passed_over = set() if by_our_roots else _NOT_OURS_TO_SAY
    problem = next(
        (
            found
            for found in verdict.problems
            if found.code not in passed_over
            and not (security.meets_ca and _of_issuer(found, shown))
        ),
        None,
    )
    return None if problem is None else _about_ours(problem, shown)


def _of_issuer(problem: Problem, shown: X509Svid) -> bool:
    """Whether it is that an issuer of ours was revoked: a CA takes such a certificate to be renewed."""
    return problem.code == Code.REVOKED and problem.subject != subject_of(shown.leaf)


def refused_beforehand(security: Security) -> OwnChainRefused | None:
    """Why it is no use to show our certificate to anybody; None where there is nothing against it."""
    problem = own_problem(security) if security.looks_first else None
    if problem is None:
        return None
    told = f"our own certificate, {_whose(security)}, would be refused: {problem.detail}"
    return OwnChainRefused(evolve(problem, detail=told))


def explained(reason: Failure, security: Security) -> Failure:
    """What ended a connection of ours; where it was an alert, by what we find in our own chain. Never raises."""
    try:
        alert = alert_of(reason)
        if alert is None or security.contexts.shown is None:
            return reason
        problem = own_problem(
            security, by_our_roots=alert == "unknown ca" and _holds_roots(security)
        )
        if problem is not None:
            told = f"the other side refused us: our certificate, {_whose(security)}, is no good: {problem.detail}"
            rule = f"TLS alert: {alert}; {problem.rule}"
            return Failure(OwnChainRefused(evolve(problem, detail=told, rule=rule)))
        return Failure(RefusedByPeer(_beside(alert, problem_of(reason), security)))
    except ANY_ERROR:
        security.log.failure("our own chain could not be judged", event="own-chain-broke")
        return reason


def _holds_roots(security: Security) -> bool:
    """Whether we hold roots of the trust domain that our certificate is of."""
    shown = security.contexts.shown
    return (
        shown is not None and shown.spiffe_id.trust_domain in security.judge.trust.bundles.bundles
    )


def _whose(security: Security) -> str:
    """Which certificate of ours it is about: who we say we are, and where that was read."""
    shown, origin = security.contexts.shown, security.contexts.origin
    named = "" if shown is None else f"that of {shown.spiffe_id}"
    return f"{named} in {origin}" if origin else named


def _about_ours(problem: Problem, shown: X509Svid) -> Problem:
    """In words about ourselves."""
    detail, remedy = problem.detail, _CURES.get(problem.code, problem.remedy)
    if problem.code == Code.INCOMPLETE_CHAIN:
        last = shown.chain[-1]
        detail = f"the certificate of its issuer {issuer_of(last)} is missing from the chain"
    return evolve(problem, detail=detail, remedy=remedy)


def _beside(alert: str, problem: Problem, security: Security) -> Problem:
    """What an alert says, with what we know of the matter: our clock, our dates, our root."""
    shown, now = security.contexts.shown, security.judge.now
    if shown is None:
        return problem
    verdict = security.judge.on_ours(shown.chain)
    begins = max(cert.not_valid_before_utc for cert in shown.chain)
    ends = min(cert.not_valid_after_utc for cert in shown.chain)
    fact = remedy = ""
    if alert == "certificate expired":
        fact = (
            f"it is valid until {rfc3339(ends)}, and here it is {rfc3339(now)}: if it is right, its clock is "
            f"{spoken_duration(ends - now)} or more ahead of ours"
        )
        remedy = "compare the two machines' clocks"
    elif alert == "bad certificate":
        told = (
            "the other side refused us: it refuses our certificate, in which we find no fault: it is not allowed "
            f"there, or a clock there is {spoken_duration(now - begins)} or more behind ours (it is valid from "
            f"{rfc3339(begins)}, and here it is {rfc3339(now)})"
        )
        cure = f"its log has the reason: have it allow {shown.spiffe_id}, or compare the two machines' clocks"
        return evolve(problem, detail=told, remedy=cure)
    elif alert == "certificate revoked":
        fact = f"serial {serial_pairs(shown.leaf.serial_number)}, which we have not heard of"
    elif alert == "unknown ca":
        top = verdict.path[-1] if verdict.ok else shown.chain[-1]
        name = subject_of(top) if verdict.ok else issuer_of(top)
        fact = f"our chain leads to {name}"
        if verdict.ok:
            fact += f" ({Fingerprint.of(top)})"
        remedy = "compare that with the roots that it holds, and use a certificate of its mesh"
    if not fact:
        return problem
    return evolve(problem, detail=f"{problem.detail}; {fact}", remedy=remedy or problem.remedy)
