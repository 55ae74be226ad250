"""The links of a judged chain, one by one: who signed whom, and what is wrong with each certificate."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen
from cryptography import x509

from pki.errors import Problem
from pki.inspect.describe import describe_certificate
from pki.inspect.description import Description
from pki.inspect.own_signature import check_certificate
from pki.svid.certificate import certificate_problems, names_match
from pki.svid.path import Path, issued_by
from pki.svid.x509svid import subject_of, validity_of

_ANOTHER_KEY = "its signature is not of that issuer's key"


@frozen
class Link:
    """One certificate of the path, with its issuer's signature."""

    certificate: Description
    signed: bool | None
    """Whether the issuer that the certificate names has signed it, as far as that can be seen; None: not checked."""
    detail: str
    """What was found about that: ``ok``, or why not, or why it was not checked."""
    is_root: bool
    """Whether the certificate is a root that was given as trusted."""
    dates_ok: bool
    problems: tuple[Problem, ...]
    """Those of the verdict that are about this certificate."""


class Decision(Protocol):
    """A verdict on a chain, by whatever rules."""

    @property
    def path(self) -> Path:
        """Leaf first."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong."""
        ...

    @property
    def ok(self) -> bool:
        """Whether it is valid."""
        ...


def links(
    verdict: Decision,
    presented: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> tuple[Link, ...]:
    """The links of ``verdict.path``, leaf first; of the leaf alone where there is no path."""
    path = verdict.path or tuple(presented[:1])
    return tuple(_links(path, verdict, presented, roots, now))


def _links(
    path: Sequence[x509.Certificate],
    verdict: Decision,
    presented: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> Iterator[Link]:
    for number, cert in enumerate(path):
        subject = subject_of(cert)
        is_root = cert in roots
        if number + 1 < len(path):
            # The verdict takes no trouble over the signature of a key that proves nothing.
            signed, detail = _signed(cert, path[number + 1], _ANOTHER_KEY)
        elif is_root and not names_match(cert, cert):
            signed, detail = True, "trusted as it is"
        else:
            signed, detail = _last(cert, presented, roots)
        own = certificate_problems(cert, now)
        yield Link(
            certificate=describe_certificate(cert, now),
            signed=signed,
            detail=detail,
            is_root=is_root,
            dates_ok=validity_of(cert).contains(now),
            problems=tuple(
                problem
                for problem in verdict.problems
                if problem.subject == subject or problem in own
            ),
        )


def _last(
    cert: x509.Certificate, presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> tuple[bool | None, str]:
    """Who signed the certificate that the path ends with."""
    if names_match(cert, cert):
        return _signed(cert, cert, "its signature does not verify")
    named = [c for c in (*presented, *roots) if names_match(cert, c)]
    if not named:
        return None, "not checked: no certificate of that name was given"
    answers = [_signed(cert, issuer, _ANOTHER_KEY) for issuer in named]
    if any(signed for signed, _ in answers):
        return True, "ok, and that does not lead to a root of the leaf's trust domain"
    return next((answer for answer in answers if answer[0] is None), answers[0])


def _signed(
    cert: x509.Certificate, issuer: x509.Certificate, otherwise: str
) -> tuple[bool | None, str]:
    """Whether ``issuer`` has signed it, and what to say of that; ``otherwise`` where its key surely has not."""
    if issued_by(cert, issuer):
        return True, "ok"
    checked = check_certificate(cert, issuer)
    if checked.holds is False:
        return False, otherwise
    return None, f"not checked: {checked.why or 'it is signed, and its form is not judged'}"
