"""Lints for certificates of one profile: workloads (X509-SVID), CAs above them, servers of the public web.

Those that begin with ``mesh-`` say what a CA of this make puts into a certificate, and are applied to its own alone:
other CAs may do otherwise.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from pki.codes import Code
from pki.errors import Problem, printable
from pki.inspect.linted import (
    CertificateLint,
    Lint,
    LintedCertificate,
    LintProfile,
    NotApplied,
)
from pki.issuing import lint as drafts
from pki.issuing.profile import (
    BACKDATE,
    ISSUING,
    ISSUING_NAME,
    ROOT,
    ROOT_NAME,
    WORKLOAD,
    generation_of,
)
from pki.issuing.publication import Publication
from pki.spiffe import NotASpiffeId, SpiffeId
from pki.svid.certificate import issuer_problems, lasting_problems
from pki.svid.x509svid import Purpose, leaf_problems, uri_names, validity_of

_BR = "CA/Browser Forum BR section"
#: The longest lives by BR section 6.3.2, by the day of issue, the latest first.
_LONGEST_LIVES = (
    (datetime(2029, 3, 15, tzinfo=UTC), 47),
    (datetime(2027, 3, 15, tzinfo=UTC), 100),
    (datetime(2026, 3, 15, tzinfo=UTC), 200),
    (datetime(2020, 9, 1, tzinfo=UTC), 398),
    (datetime(2018, 3, 1, tzinfo=UTC), 825),
)
#: Reserved by BR section 7.1.6.1: domain, organization, individual and extended validation.
_WEB_POLICIES = {f"2.23.140.1.{n}" for n in ("2.1", "2.2", "2.3", "1")}
_WEB_CURVES = {"secp256r1", "secp384r1", "secp521r1"}
_ANY_EKU = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
_OURS = "have it issued anew by the mesh's CA; if that has made it so, report it"


def svid_leaf(c: LintedCertificate) -> Iterator[Problem]:
    """One SPIFFE ID with a path, no CA, and the usages of both ends."""
    yield from leaf_problems(c.cert, Purpose.ANY)


def critical_usage(c: LintedCertificate) -> Iterator[Problem]:
    """Key usages are there, and critical."""
    usage = x509.KeyUsage.oid
    if not c.critical.get(usage, False):
        detail = f"its key usage is not {'critical' if usage in c.critical else 'there'}"
        remedy = "have it issued anew, with a critical key usage"
        yield c.broken(detail, "X509-SVID section 4.3", remedy)


def endpoint(c: LintedCertificate) -> Iterator[Problem]:
    """What each endpoint of a mesh refuses, whoever signed it."""
    yield from lasting_problems(c.cert)


def ca_flag(c: LintedCertificate) -> Iterator[Problem]:
    """It is a CA."""
    if not c.is_ca:
        remedy = "have it issued as a CA, or choose another --profile"
        yield c.broken("it is no CA", "4.2.1.9", remedy, Code.NOT_A_CA)


def ca_issuing(c: LintedCertificate) -> Iterator[Problem]:
    """What each endpoint refuses in a CA above a peer."""
    yield from issuer_problems(c.cert, 0)


def ca_spiffe_id(c: LintedCertificate) -> Iterator[Problem]:
    """At most its trust domain's."""
    uris = uri_names(c.cert)
    rule = "X509-SVID section 3.2"
    if len(uris) > 1:
        yield c.broken(f"a CA has at most one URI name, this one {len(uris)}", rule)
    for uri in uris[:4]:
        try:
            if not uri.startswith("spiffe:") or not SpiffeId.parse(uri).path:
                continue
            detail = f"{printable(uri, 120)} has a path, and a CA's SPIFFE ID is its trust domain's"
        except NotASpiffeId as error:
            detail = str(error)
        yield c.broken(detail, rule, code=Code.NOT_AN_SVID)


def _is_of_this_make(cert: x509.Certificate) -> bool:
    names = cert.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    is_named = [name.value for name in names] in ([ROOT_NAME], [ISSUING_NAME])
    return is_named and generation_of(cert.issuer) > 0


def _draftee(c: LintedCertificate, issuer: x509.Certificate) -> drafts.Draftee:
    """As the CA looked at it before it signed. Raises :class:`NotApplied` for other CAs' certificates."""
    if not _is_of_this_make(c.cert):
        raise NotApplied("its issuer is not named as a CA of this make is")
    profile = (ROOT if c.is_self_issued else ISSUING) if c.is_ca else WORKLOAD
    now = validity_of(c.cert).not_before + BACKDATE
    return drafts.Draftee(c.cert, issuer, evolve(profile, publication=_publication(c)), now)


def _publication(c: LintedCertificate) -> Publication:
    """With as many extensions as the certificate has for it: which URLs are right, only its CA knows."""
    some = "http://ca.example/"
    return Publication(
        some if c.get(x509.CRLDistributionPoints) else None,
        some if c.get(x509.AuthorityInformationAccess) else None,
    )


def _mesh(
    *rules: Callable[[drafts.Draftee], Iterable[Problem]], with_issuer: bool = False
) -> Callable[[LintedCertificate], Iterator[Problem]]:
    def look(c: LintedCertificate) -> Iterator[Problem]:
        draftee = _draftee(c, c.cert)
        if with_issuer:
            draftee = _draftee(c, c.known_issuer)
        for rule in rules:
            for problem in rule(draftee):
                yield evolve(problem, code=Code.PROFILE_VIOLATION, remedy=_OURS)

    return look


def _within_issuer(d: drafts.Draftee) -> Iterator[Problem]:
    """No longer than the issuer."""
    own, its = validity_of(d.cert), validity_of(d.issuer)
    rule = "RFC 5280 section 4.1.2.5"
    if own.not_after > its.not_after:
        yield drafts.broken(d, "notAfter is later than the issuer's", rule)
    if own.not_before < its.not_before:
        yield drafts.broken(d, "notBefore is earlier than the issuer's", rule)


def _web(c: LintedCertificate, detail: str, section: str, remedy: str = "") -> Problem:
    return c.broken(detail, f"{_BR} {section}", remedy or "ask its CA for one that keeps to the BR")


def web_names(c: LintedCertificate) -> Iterator[Problem]:
    """DNS names and IP addresses, nothing else, at least one; no wildcard but a whole first label."""
    names = list(c.get(x509.SubjectAlternativeName) or ())
    section = "7.1.2.7.12"
    if not names:
        yield _web(c, "it has no alternative names: browsers take no other", section)
    for name in names:
        text = printable(str(name.value), 120)
        if not isinstance(name, x509.DNSName | x509.IPAddress):
            kind = type(name).__name__
            yield _web(c, f"{text!r} among its alternative names is a {kind}", section)
        elif isinstance(name, x509.DNSName) and _is_address(name.value):
            yield _web(c, f"{text!r} is an IP address, and stands as a DNS name", section)
        elif isinstance(name, x509.DNSName) and "*" in name.value.removeprefix("*."):
            yield _web(c, f"the wildcard in {text!r} is not its whole first label", section)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def web_common_name(c: LintedCertificate) -> Iterator[Problem]:
    """One of the alternative names, letter by letter, where there is one."""
    names = {str(name.value) for name in c.get(x509.SubjectAlternativeName) or ()}
    for attribute in c.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if str(attribute.value) not in names:
            text = printable(str(attribute.value), 120)
            detail = f"its common name {text!r} is none of its alternative names"
            yield _web(c, detail, "7.1.4.3", "put the name among the alternative names")


def web_life(c: LintedCertificate) -> Iterator[Problem]:
    """No longer than browsers take, by its day of issue."""
    life = validity_of(c.cert)
    for since, days in _LONGEST_LIVES:
        if life.not_before >= since:
            seconds = timedelta(seconds=1)
            if life.not_after - life.not_before + seconds > timedelta(days=days):
                found = (life.not_after - life.not_before).days
                detail = (
                    f"it is valid for {found} days, and {days} is the most for its day of issue"
                )
                yield _web(c, detail, "6.3.2", "have it issued for less, and renewed in time")
            return


def web_usages(c: LintedCertificate) -> Iterator[Problem]:
    """For servers, no CA, and not for everything."""
    extended = set(c.get(x509.ExtendedKeyUsage) or ())
    if ExtendedKeyUsageOID.SERVER_AUTH not in extended:
        detail = "extended key usage does not allow serverAuth"
        yield evolve(_web(c, detail, "7.1.2.7.10"), code=Code.WRONG_USAGE)
    if _ANY_EKU in extended:
        yield _web(c, "it is for any extended key usage", "7.1.2.7.10")
    usage = c.get(x509.KeyUsage)
    if c.is_ca or (usage is not None and (usage.key_cert_sign or usage.crl_sign)):
        yield _web(c, "it is a CA's, or may sign certificates or CRLs", "7.1.2.7.8")


def web_key(c: LintedCertificate) -> Iterator[Problem]:
    """RSA, or a NIST curve."""
    key = c.cert.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _WEB_CURVES:
            yield _web(c, f"its key is on the curve {key.curve.name}", "6.1.5", "take P-256")
    elif not isinstance(key, rsa.RSAPublicKey):
        name = type(key).__name__.removesuffix("PublicKey")
        yield _web(
            c, f"its key is of kind {name}, which browsers do not take", "6.1.5", "take P-256"
        )


def web_serial(c: LintedCertificate) -> Iterator[Problem]:
    """64 bits that nobody can guess make 8 bytes, but for one in 256."""
    if 0 < c.cert.serial_number < 1 << 56:
        yield _web(c, "its serial number is too short to hold 64 bits that nobody can guess", "7.1")


def web_policies(c: LintedCertificate) -> Iterator[Problem]:
    """How its subject was validated."""
    told = {p.policy_identifier.dotted_string for p in c.get(x509.CertificatePolicies) or ()}
    if not told & _WEB_POLICIES:
        yield _web(c, "its policies do not say how its subject was validated", "7.1.2.7.9")


def web_places(c: LintedCertificate) -> Iterator[Problem]:
    """Where its issuer's certificate is, and that CRLs come by http."""
    access = list(c.get(x509.AuthorityInformationAccess) or ())
    if not any(told.access_method == AuthorityInformationAccessOID.CA_ISSUERS for told in access):
        yield _web(c, "it does not say where its issuer's certificate is", "7.1.2.7.7")
    for point in c.get(x509.CRLDistributionPoints) or ():
        for name in point.full_name or ():
            if not str(name.value).startswith("http://"):
                text = printable(str(name.value), 120)
                yield _web(c, f"its CRL is at {text!r}, which is no http URL", "7.1.2.11.2")


def _svid(
    name: str, rule: str, look: Callable[[LintedCertificate], Iterable[Problem]]
) -> CertificateLint:
    return Lint(name, LintProfile.SVID, rule, look)


def _ca(
    name: str, rule: str, look: Callable[[LintedCertificate], Iterable[Problem]]
) -> CertificateLint:
    return Lint(name, LintProfile.CA, rule, look)


def _br(
    name: str, section: str, look: Callable[[LintedCertificate], Iterable[Problem]]
) -> CertificateLint:
    return Lint(name, LintProfile.WEB, f"{_BR} {section}", look)


def _own(profile: LintProfile) -> tuple[CertificateLint, ...]:
    """What a CA of this make demands of its drafts, by its own lints."""
    source = "what a CA of this make signs"
    return (
        Lint("mesh-serial", profile, source, _mesh(drafts.version, drafts.serial)),
        Lint("mesh-extensions", profile, source, _mesh(drafts.extensions)),
        Lint("mesh-usages", profile, source, _mesh(drafts.usages)),
        Lint("mesh-issuer", profile, source, _mesh(
            drafts.names, drafts.key_identifiers, _within_issuer, with_issuer=True
        )),
    )  # fmt: skip


PROFILE_LINTS: tuple[CertificateLint, ...] = (
    _svid("svid-leaf", "X509-SVID sections 2 to 5", svid_leaf),
    _svid("svid-key-usage", "X509-SVID section 4.3", critical_usage),
    _svid("svid-endpoint", "what each endpoint of a mesh refuses", endpoint),
    *_own(LintProfile.SVID),
    _ca("ca-flag", "RFC 5280 section 4.2.1.9", ca_flag),
    _ca("ca-issuing", "RFC 5280 section 6.1.4", ca_issuing),
    _ca("ca-key-usage", "X509-SVID section 4.3", critical_usage),
    _ca("ca-spiffe-id", "X509-SVID section 3.2", ca_spiffe_id),
    _ca("ca-endpoint", "what each endpoint of a mesh refuses", endpoint),
    *_own(LintProfile.CA),
    _br("web-names", "7.1.2.7.12", web_names),
    _br("web-common-name", "7.1.4.3", web_common_name),
    _br("web-life", "6.3.2", web_life),
    _br("web-usages", "7.1.2.7.10", web_usages),
    _br("web-key", "6.1.5", web_key),
    _br("web-serial", "7.1", web_serial),
    _br("web-policies", "7.1.2.7.9", web_policies),
    _br("web-places", "7.1.2.7.7", web_places),
)
