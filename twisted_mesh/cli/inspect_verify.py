"""What ``pki-inspect verify`` decides: by whose rules, which roots may vouch, which names must match, what CRLs and
OCSP answers say.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from cryptography import x509

from pki.codes import Code
from pki.crl.crl import Crl, crls_in
from pki.errors import HOSTILE_INPUT, Malformed, PkiError, Problem
from pki.inspect.describe import describe
from pki.inspect.mail_name import mail_problem
from pki.inspect.path_report import Decision, Link, links
from pki.inspect.request_crl_lints import crl_extensions
from pki.inspect.web_path import WebVerdict, depth_problem, judge_web
from pki.inspect.web_rules import WebPurpose
from pki.ocsp.evidence import Evidence, answers_from, crls_from
from pki.ocsp.response import Answer
from pki.spiffe import NotASpiffeId, SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.certificate import names_match
from pki.svid.chain import Verdict, crowd_problem, judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, spiffe_id_of, subject_of, uri_names
from twisted_mesh.tls.veto import openssl_objection

if TYPE_CHECKING:
    from pki.ct.receipt import SctDemand

#: Nothing that is asked for depends on it.
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)

Certificates = Sequence[x509.Certificate]


@frozen
class File:
    """What was read, and from where."""

    name: str
    data: bytes = field(repr=False)


class UnusableEvidence(PkiError):
    """A CRL or an OCSP answer that was given and cannot be relied on."""

    code = Code.UNUSABLE_EVIDENCE


def verify(
    leaf: x509.Certificate,
    others: Certificates,
    roots: Sequence[Certificates],
    *,
    now: datetime,
    purpose: Purpose | WebPurpose,
    patterns: Sequence[SpiffePattern] = (),
    hosts: Sequence[str] = (),
    emails: Sequence[str] = (),
    max_depth: int | None = None,
    crls: Sequence[File] = (),
    answers: Sequence[File] = (),
    sent: int = 0,
    demand: "SctDemand | None" = None,
) -> tuple[Decision, tuple[Link, ...]]:
    """The verdict on ``leaf`` and the links of its chain; ``roots`` come file by file.

    A :class:`Purpose` asks for the mesh's verdict, a :class:`WebPurpose` for one by the web's rules.
    ``sent`` is how many certificates its file has, all of which an endpoint would be sent. What OpenSSL
    objects to is told where we have nothing against the chain: no endpoint would let it in. ``demand`` is how many
    receipts of logs it must have.

    Raises :class:`UnusableEvidence` for a CRL or an OCSP answer that cannot be relied on, and nothing else.
    """
    presented = _chain(leaf, others)
    bundles = bundles_of(roots, spiffe_id_of(leaf))
    anchors: Certificates = bundles.all_roots
    if isinstance(purpose, WebPurpose):
        anchors = list(dict.fromkeys(chain.from_iterable(roots)))

    def decide(revocations: RevocationSet) -> Verdict | WebVerdict:
        if isinstance(purpose, WebPurpose):
            found = judge_web(
                presented, anchors, revocations, now=now, purpose=purpose, max_depth=max_depth
            )
            if found.ok or not purpose.is_end_of_tls or spiffe_id_of(leaf) is None:
                return found
        # An SVID that the web refuses, for its CA's key for one, is good for what the mesh takes it for. If the mesh
        # refuses it too, it knows better why.
        of_the_mesh = Purpose(purpose.value)
        return judge(presented, bundles, revocations, now=now, purpose=of_the_mesh)

    verdict = decide(RevocationSet())
    told: list[Problem] = []
    if crls or answers:
        # Of several paths another may be judged once it is known what is revoked: all of them are asked about.
        candidates = dict.fromkeys((*verdict.path, leaf, *others, *chain.from_iterable(roots)))
        evidence = _evidence(crls, answers, list(candidates), verdict.path, now)
        if isinstance(purpose, WebPurpose):
            _demand_numbers(crls)
        verdict = decide(evidence.revocations(now))
        told = evidence.problems(verdict.path)
    objections = [too_deep] if (too_deep := depth_problem(verdict.path, max_depth)) else []
    if isinstance(verdict, Verdict):
        if crowd := crowd_problem(sent):
            objections.append(crowd)
        if verdict.ok and (objection := openssl_objection((leaf, *others), anchors, now)):
            objections.append(objection)
    named = name_problems(leaf, patterns, hosts, emails)
    unlogged = demand.problems(verdict.path or (leaf,), now) if demand else ()
    problems = tuple(dict.fromkeys((*verdict.problems, *objections, *told, *named, *unlogged)))
    verdict = evolve(verdict, problems=problems)
    return verdict, links(verdict, presented, anchors, now)


def _evidence(
    crls: Sequence[File],
    answers: Sequence[File],
    candidates: Certificates,
    path: Certificates,
    now: datetime,
) -> Evidence:
    listed: list[Crl] = []
    said: dict[x509.Certificate, Answer] = {}
    for file in crls:
        with _naming(file):
            listed += crls_from(file.data, candidates, now)
    for file in answers:
        with _naming(file):
            said |= answers_from(file.data, path, now)
    return Evidence(tuple(listed), said)


def _demand_numbers(crls: Sequence[File]) -> None:
    """By the web's rules a CRL has a number and names its issuer's key. Raises :class:`UnusableEvidence`."""
    for file in crls:
        for der in crls_in(file.data):
            for problem in crl_extensions(x509.load_der_x509_crl(der)):
                raise UnusableEvidence(f"{file.name}: {problem.detail} ({problem.rule})")


@contextmanager
def _naming(file: File) -> Iterator[None]:
    try:
        yield
    except PkiError as error:
        seen = _seen_in(file.data) if isinstance(error, Malformed) else ""
        raise UnusableEvidence(f"{file.name}: {error}{seen}") from None


def _seen_in(data: bytes) -> str:
    """What is odd about a CRL or an OCSP answer that a strict library refuses: the first place, in words."""
    try:
        remarks = [remark for item in describe(data, _ANY_TIME) for remark in item.remarks]
    except Malformed:
        return ""
    return f" ({remarks[0]})" if remarks else ""


def bundles_of(files: Sequence[Certificates], leaf_id: SpiffeId | None) -> BundleSet:
    """Each root under the trust domain that it names. A root that names none belongs to the one that
    its file's other roots name, or else to the leaf's.
    """
    trusted: dict[TrustDomain, dict[x509.Certificate, None]] = {}
    for roots in files:
        homes = {root: _trust_domain_of(root) for root in roots}
        named = {home for home in homes.values() if home}
        default = named.pop() if len(named) == 1 else leaf_id.trust_domain if leaf_id else None
        for root, named_home in homes.items():
            if home := named_home or default:
                trusted.setdefault(home, {})[root] = None
    return BundleSet.of(*(TrustBundle(home, tuple(roots)) for home, roots in trusted.items()))


def _trust_domain_of(root: x509.Certificate) -> TrustDomain | None:
    try:
        uris = uri_names(root)
        return SpiffeId.parse(uris[0]).trust_domain if len(uris) == 1 else None
    except NotASpiffeId:
        return None
    except HOSTILE_INPUT:
        return None


def _chain(leaf: x509.Certificate, others: Certificates) -> list[x509.Certificate]:
    """The leaf and those of the others that may stand above it: a file of intermediates can hold many."""
    found = [leaf]
    for below in found:
        found += [c for c in dict.fromkeys(others) if c not in found and names_match(below, c)]
    return found


def name_problems(
    leaf: x509.Certificate,
    patterns: Sequence[SpiffePattern],
    hosts: Sequence[str],
    emails: Sequence[str] = (),
) -> list[Problem]:
    """Every name that was demanded and that the certificate is not valid for."""
    spiffe_id = spiffe_id_of(leaf)
    said = f"certificate is valid for {spiffe_id or 'no SPIFFE ID'}, not {{}}"
    try:
        uri_names(leaf)
    except HOSTILE_INPUT:
        said = "the names in the certificate cannot be decoded: {} may be one"
    problems = [
        Problem(
            Code.NAME_MISMATCH,
            said.format(pattern),
            "find out who presented it, or ask for the ID that is meant",
            "X509-SVID section 5.2",
            subject_of(leaf),
        )
        for pattern in patterns
        if spiffe_id is None or not pattern.matches(spiffe_id)
    ]
    if hosts:
        from twisted_mesh.tls.hostname import hostname_problem

        problems += [problem for host in hosts if (problem := hostname_problem(leaf, host))]
    problems += [problem for mail in emails if (problem := mail_problem(leaf, mail))]
    return problems
