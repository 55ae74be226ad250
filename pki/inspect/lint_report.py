"""What lints find in files: each thing with its findings, the lints that were applied, and why others were not.

What was not judged is never told as good: a lint that could not look is named, with its reason.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from attrs import evolve, frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem
from pki.inspect.certificate_lints import CERTIFICATE_LINTS
from pki.inspect.contents import TRUSTED, Held, held
from pki.inspect.describe import describe_part
from pki.inspect.description import Description
from pki.inspect.linted import Lint, LintedCertificate, LintProfile, NotApplied
from pki.inspect.own_signature import check_certificate
from pki.inspect.profile_lints import PROFILE_LINTS
from pki.inspect.request_crl_lints import CRL_LINTS, REQUEST_LINTS, LintedRequest
from pki.pem import ANSWER, CERTIFICATE, CRL, REQUEST
from pki.svid.certificate import encoded_parts, is_self_issued, names_the_key
from pki.svid.x509svid import extension

_T = TypeVar("_T")
_FORM_RULE = "RFC 5280 section 4.1"
_RULE = re.compile(r"((?:RFC \d+|X\.\d+) (?:section|appendix) [A-Z0-9]+(?:\.[0-9]+)*)")
#: Of one name; more are not tried.
_MOST_ISSUERS = 8
#: Of one look; each may be of a key that is made to take long.
_MOST_SIGNATURES = 256
_UNDECODABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed)
#: Remarks that are no faults of what they are about.
_HARMLESS = ("what OpenSSL trusts it for follows it", "is of a kind that is not used here")
#: Nothing that is looked for depends on it.
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)
#: The name of the lint that looks how a thing is encoded.
FORM = "form"


@frozen
class Finding:
    """A broken rule, and by which lint it was found."""

    lint: str
    problem: Problem


@frozen
class Unjudged:
    """A lint that was not applied, and why."""

    lint: str
    why: str


@frozen
class LintReport:
    """One certificate, CSR or other thing."""

    what: str
    subject: str
    sha256: str
    """Of its DER, in hex; empty for what is not looked at."""
    profiles: tuple[LintProfile, ...]
    """What it was held to beside the rules for all."""
    findings: tuple[Finding, ...]
    applied: tuple[str, ...]
    """The lints that could look, by their names."""
    not_applied: tuple[Unjudged, ...]


@frozen
class Unreadable:
    """A part of a file that cannot be read at all, and why."""

    why: str


def lint_files(
    files: Iterable[tuple[str, bytes]], profiles: Collection[LintProfile] = ()
) -> tuple[list[tuple[str, LintReport]], list[str]]:
    """What is found in each thing of files, whose names come with their bytes; why others cannot be read.

    Without ``profiles`` each certificate is held to what it seems to be for. Issuers are looked for in all the files.
    Never raises.
    """
    parts: list[tuple[str, Held]] = []
    lost: list[str] = []
    for name, data in files:
        try:
            found = held(data)
        except Malformed as error:
            lost.append(f"{name}: {error}")
            continue
        parts += ((name, part) for part in found)
    loaded = {part: cert for _, part in parts if (cert := _load(part)) is not None}
    issuers = _Issuers(loaded.values())
    reports: list[tuple[str, LintReport]] = []
    for name, part in parts:
        try:
            if part.why:
                raise Malformed(part.why)
            item = describe_part(part, _ANY_TIME)
        except Malformed as error:
            lost.append(f"{name}: {error}")
            continue
        reports.append((name, _report(part, item, loaded.get(part), issuers, profiles)))
    return reports, lost


def all_lints() -> Iterator[tuple[str, LintProfile, str]]:
    """The name, profile and rule of each lint that there is: ``form`` first."""
    yield FORM, LintProfile.ANY, f"{_FORM_RULE}, X.690"
    yield from ((one.name, one.profile, one.rule) for one in (*CERTIFICATE_LINTS, *PROFILE_LINTS))
    yield from ((one.name, one.profile, one.rule) for one in REQUEST_LINTS)
    yield from ((one.name, one.profile, one.rule) for one in CRL_LINTS)


class _Issuers:
    """The certificates that were given, by their subjects."""

    def __init__(self, certificates: Iterable[x509.Certificate]) -> None:
        self._signatures_left = _MOST_SIGNATURES
        self._named: dict[bytes, dict[x509.Certificate, None]] = {}
        for cert in certificates:
            self._named.setdefault(encoded_parts(cert)[1], {})[cert] = None

    def of(self, cert: x509.Certificate) -> x509.Certificate | None:
        """The one whose key it names; else one that has signed it; None where there is neither, or no telling."""
        candidates = list(self._named.get(encoded_parts(cert)[0], {}))
        named = [candidate for candidate in candidates if names_the_key(cert, candidate)]
        tried = named or candidates
        if len(named) != 1:
            for candidate in tried[:_MOST_ISSUERS]:
                if self._signatures_left <= 0:
                    return None
                self._signatures_left -= 1
                if check_certificate(cert, candidate).holds:
                    named = [candidate]
                    break
        if not named:
            return None
        return cert if named[0] == cert else named[0]


def _load(part: Held) -> x509.Certificate | None:
    if part.label not in (CERTIFICATE, TRUSTED) or part.why:
        return None
    try:
        return x509.load_der_x509_certificate(part.der)
    except HOSTILE_INPUT:
        return None


def _report(
    part: Held,
    item: Description,
    cert: x509.Certificate | None,
    issuers: _Issuers,
    wanted: Collection[LintProfile],
) -> LintReport:
    outcome = _Outcome()
    chosen: tuple[LintProfile, ...] = ()
    if part.label in (CERTIFICATE, TRUSTED):
        outcome.form(item)
        chosen = tuple(wanted) or _seems_for(item, cert)
        lints = [
            one
            for one in (*CERTIFICATE_LINTS, *PROFILE_LINTS)
            if one.profile is LintProfile.ANY or one.profile in chosen
        ]
        if cert is None:
            outcome.refused(lints, item.subject)
        else:
            outcome.apply(lints, LintedCertificate(cert, issuers.of(cert), is_self_issued(cert)))
        if not chosen:
            why = "it cannot be told what it is for: name a --profile"
            outcome.not_applied.append(Unjudged("svid, ca, web", why))
    elif part.label == REQUEST:
        outcome.form(item)
        request = LintedRequest(
            part.der, item.subject, item.signed_by_itself, item.not_checked, item.spiffe_ids
        )
        outcome.apply(REQUEST_LINTS, request)
    elif part.label == CRL:
        outcome.form(item)
        try:
            outcome.apply(CRL_LINTS, x509.load_der_x509_crl(part.der))
        except HOSTILE_INPUT:
            outcome.refused(CRL_LINTS, "")
    elif part.label == ANSWER:
        outcome.form(item)
        why = "of OCSP responses only the form is looked at: verify --ocsp judges them"
        outcome.not_applied.append(Unjudged("all others", why))
    else:
        why = "only certificates, CSRs, CRLs and OCSP responses are looked at"
        outcome.not_applied.append(Unjudged("all", why))
    return outcome.report(item, chosen)


def _seems_for(item: Description, cert: x509.Certificate | None) -> tuple[LintProfile, ...]:
    """What a certificate seems to be for; nothing where that cannot be told."""
    if item.is_ca is None or item.spiffe_ids is None:
        return ()
    if item.is_ca:
        return (LintProfile.CA,)
    if item.spiffe_ids:
        return (LintProfile.SVID,)
    try:
        extended = extension(cert, x509.ExtendedKeyUsage) if cert else None
    except HOSTILE_INPUT:
        return ()
    if extended and ExtendedKeyUsageOID.SERVER_AUTH in extended:
        return (LintProfile.WEB,)
    return (LintProfile.ANY,)


class _Outcome:
    """Collects what the lints of one thing find."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.applied: list[str] = []
        self.not_applied: list[Unjudged] = []

    def form(self, item: Description) -> None:
        """How it is encoded: whatever is odd about it."""
        self.applied.append(FORM)
        for remark in item.remarks:
            if any(text in remark for text in _HARMLESS):
                continue
            code = Code.MALFORMED if remark in item.unreadable else Code.PROFILE_VIOLATION
            named = _RULE.search(remark)
            rule = named[1] if named else _FORM_RULE
            self.findings.append(
                Finding(FORM, Problem(code, remark, "have it issued anew", rule, item.subject))
            )

    def apply(self, lints: Iterable[Lint[_T]], thing: _T) -> None:
        """Each lint in turn. What two of them find by the same rule is told once."""
        for one in lints:
            known = {(found.problem.code, found.problem.rule) for found in self.findings}
            try:
                problems = list(one.look(thing))
            except NotApplied as reason:
                self.not_applied.append(Unjudged(one.name, str(reason)))
                continue
            except _UNDECODABLE:
                self.not_applied.append(Unjudged(one.name, "a part of it cannot be decoded"))
                subject = getattr(thing, "subject", "")
                self._undecodable("strict readers cannot decode a part of it", subject)
                continue
            self.applied.append(one.name)
            for problem in problems:
                told = problem if problem.rule else evolve(problem, rule=one.rule)
                if (told.code, told.rule) not in known:
                    self.findings.append(Finding(one.name, told))

    def refused(self, lints: Iterable[Lint[_T]], subject: str) -> None:
        """No strict reader takes the thing at all."""
        why = "strict readers refuse its form, and nothing but that was looked at"
        self.not_applied += [Unjudged(one.name, why) for one in lints]
        self._undecodable("strict readers refuse its form", subject)

    def _undecodable(self, detail: str, subject: str) -> None:
        """What strict readers refuse is a finding, whether or not anything odd was seen."""
        if not any(found.lint == FORM for found in self.findings):
            problem = Problem(Code.MALFORMED, detail, "have it issued anew", _FORM_RULE, subject)
            self.findings.append(Finding(FORM, problem))

    def report(self, item: Description, profiles: Sequence[LintProfile]) -> LintReport:
        """All of it."""
        return LintReport(
            item.what,
            item.subject,
            item.sha256,
            tuple(profiles),
            tuple(dict.fromkeys(self.findings)),
            tuple(self.applied),
            tuple(self.not_applied),
        )
