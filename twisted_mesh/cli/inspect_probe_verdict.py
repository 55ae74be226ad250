"""What is thought of what a server has shown: its chain, its names, and what is stapled to it."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, PkiError, Problem
from pki.inspect.describe import describe, readable_certificates
from pki.inspect.description import Description
from pki.inspect.web_path import web_problems
from pki.ocsp.evidence import answers_from
from pki.spiffe import SpiffePattern
from pki.svid.certificate import is_self_issued, names_match
from pki.svid.x509svid import Purpose, issuer_of, subject_of, uri_names
from pki.validity import rfc3339
from twisted_mesh.cli import inspect_verify
from twisted_mesh.tls.probe import Probed

if TYPE_CHECKING:
    from pki.ct.log_list import LogList
    from pki.ct.receipt import SctDemand

#: Where systems keep the roots of the web, beside what OpenSSL's variable says.
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)

Certificates = tuple[x509.Certificate, ...]


@frozen
class Trusted:
    """Roots, and the file that they are from."""

    name: str
    roots: Certificates = field(repr=False)


@frozen
class Staple:
    """What is stapled to a certificate."""

    status: str
    """``none``, ``good``, ``revoked``, ``bad`` or ``not judged``."""
    detail: str = ""


@frozen
class Judged:
    """The verdict on a server."""

    chain: tuple[Description | str, ...]
    """As it was sent; of what cannot be shown, why."""
    remarks: tuple[str, ...]
    """What is odd about the order, or missing."""
    purpose: str
    """``svid`` or ``server``."""
    roots: tuple[str, ...]
    """Where the roots come from."""
    is_judged: bool
    why: str
    """Why not, where it was not judged."""
    problems: tuple[Problem, ...]
    staple: Staple

    @property
    def ok(self) -> bool:
        """Whether the server is who it should be."""
        return self.is_judged and not self.problems

    @property
    def verdict(self) -> str:
        """``valid``, ``invalid`` or ``not judged``: problems count in any case."""
        if self.problems:
            return "invalid"
        return "valid" if self.is_judged else "not judged"


def system_roots() -> Trusted | None:
    """What this system trusts for the web; None where there is nothing that can be read."""
    named = os.environ.get("SSL_CERT_FILE")
    for name in (named,) if named else _SYSTEM_ROOTS:
        try:
            found, _ = readable_certificates(Path(name).read_bytes())
        except (OSError, PkiError):
            continue
        return Trusted(name, found)
    return None


def judge_probed(
    found: Probed,
    trusted: Sequence[Trusted],
    otherwise: Callable[[], Trusted | None],
    *,
    patterns: Sequence[SpiffePattern],
    hosts: Sequence[str],
    servername: str,
    now: datetime,
    demand: "SctDemand | None" = None,
) -> Judged:
    """What is thought of it; ``otherwise`` finds the roots for a server of the web, where none are given.

    ``hosts`` must all be in it; without them, and without a SPIFFE ID, it is the one that was asked for. ``demand``
    is how many receipts of logs it must have.
    """
    shown = tuple(_shown(der, now) for der in found.chain)
    if demand is not None:
        shown = _receipted(found.chain, shown, trusted, demand.logs, now)
    presented = [cert for der in found.chain if (cert := _loaded(der)) is not None]
    leaf = _loaded(found.chain[0]) if found.chain else None
    if leaf is None:
        why = "its form is one that is not judged" if shown else "the server showed no certificate"
        code = Code.MALFORMED if shown else Code.NO_CERTIFICATE
        problem = Problem(code, why, "look in its configuration", "RFC 8446 section 4.4.2", "peer")
        return Judged(shown, (), "server", (), True, "", (problem,), Staple("not judged", why))
    is_svid = _names_a_workload(leaf)
    if not trusted and not is_svid and (own := otherwise()) is not None:
        trusted = (own,)
    files = [one.roots for one in trusted]
    every = [root for roots in files for root in roots]
    if not is_svid and not hosts:
        hosts = (servername or found.target.host,)
    path: Sequence[x509.Certificate] = _by_name(presented, every)
    if not trusted:
        problems = inspect_verify.name_problems(leaf, patterns, hosts)
    elif is_svid:
        verdict, _ = inspect_verify.verify(
            leaf,
            presented[1:],
            files,
            now=now,
            purpose=Purpose.ANY,
            patterns=patterns,
            hosts=hosts,
            sent=len(found.chain),
        )
        problems = list(verdict.problems)
        path = verdict.path if len(verdict.path) > 1 else path
    else:
        problems = [
            *web_problems(presented, every, now),
            *inspect_verify.name_problems(leaf, patterns, hosts),
        ]
    staple, revoked = _staple(found.staple, path, now)
    why = (
        "" if trusted else "no roots are known for it: name them (--roots), or an identity (--svid)"
    )
    return Judged(
        shown,
        tuple(_remarks(presented, every))
        if len(presented) == len(shown)
        else ("not all of them have a form that is judged",),
        "svid" if is_svid else "server",
        tuple(one.name for one in trusted),
        bool(trusted),
        why,
        (*problems, *revoked, *(demand.problems(path, now) if demand else ())),
        staple,
    )


def _names_a_workload(leaf: x509.Certificate) -> bool:
    """Whether it means to be an SVID."""
    try:
        return any(uri.startswith("spiffe:") for uri in uri_names(leaf))
    except HOSTILE_INPUT:
        return False


def _loaded(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except HOSTILE_INPUT:
        return None


def _shown(der: bytes, now: datetime) -> Description | str:
    try:
        return describe(der, now)[0]
    except Malformed as error:
        return str(error)


def _receipted(
    chain: Sequence[bytes],
    shown: tuple[Description | str, ...],
    trusted: Sequence[Trusted],
    logs: "LogList",
    now: datetime,
) -> tuple[Description | str, ...]:
    """The same, with the receipts of each certificate."""
    from pki.inspect.receipts import with_receipts

    told = [
        (der, item) for der, item in zip(chain, shown, strict=True) if not isinstance(item, str)
    ]
    verified = iter(with_receipts(told, [c for one in trusted for c in one.roots], logs, now))
    return tuple(item if isinstance(item, str) else next(verified) for item in shown)


def _by_name(
    presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """The leaf and one that has its issuer's name, if there is one."""
    above = [c for c in (*presented[1:], *roots) if names_match(presented[0], c)]
    return [presented[0], *above[:1]]


def _remarks(
    presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> Iterator[str]:
    for number, (below, above) in enumerate(pairwise(presented), 1):
        if not names_match(below, above):
            yield f"certificate {number + 1} is not the issuer of certificate {number}"
    for number, cert in enumerate(presented, 1):
        if is_self_issued(cert):
            if number > 1:
                yield f"certificate {number} is a root, which need not be sent"
        elif not any(names_match(cert, other) for other in (*presented, *roots)):
            yield f"the issuer of certificate {number}, {issuer_of(cert)}, was not sent"


def _staple(
    answer: bytes, path: Sequence[x509.Certificate], now: datetime
) -> tuple[Staple, list[Problem]]:
    if not answer:
        return Staple("none"), []
    if len(path) < 2:
        return Staple("not judged", "there is one; the certificate's issuer is not known"), []
    leaf = path[0]
    try:
        said = answers_from(answer, path[:2], now)[leaf]
    except PkiError as error:
        problem = Problem(
            Code.STAPLE_REFUSED,
            f"what is stapled to it cannot be relied on: {error}",
            "look at the server's stapling, and at its CA's responder",
            "RFC 6066 section 8",
            subject_of(leaf),
        )
        return Staple("bad", str(error)), [problem]
    if said.revocation is not None:
        return Staple("revoked"), [said.revocation.problem(subject_of(leaf), is_issuer=False)]
    return Staple("good", f"of {rfc3339(said.this_update)}, until {rfc3339(said.next_update)}"), []
