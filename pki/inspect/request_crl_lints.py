"""Lints for CSRs (RFC 2986, and what a mesh's CA takes) and for CRLs (RFC 5280 section 5)."""

from collections.abc import Iterator

from attrs import evolve, frozen
from cryptography import x509

from pki.codes import Code
from pki.der import pem
from pki.errors import Problem, Refused
from pki.inspect.linted import Lint, LintProfile, NotApplied
from pki.issuing.csr import IssuanceRequest
from pki.keys import is_broken
from pki.pem import REQUEST
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.svid.x509svid import extension, issuer_of

#: For a CSR that leaves it to the CA which ID it is about.
_SOME_ID = TrustDomain("mesh.local").member("service", "name")


@frozen
class LintedRequest:
    """A CSR, and what was read of it."""

    der: bytes
    subject: str
    proof: bool | None
    """Whether its proof of possession holds; None: that was not checked."""
    not_checked: str
    spiffe_ids: tuple[str, ...] | None


def proof(c: LintedRequest) -> Iterator[Problem]:
    """It is signed with the key that it is about."""
    if c.proof is None:
        raise NotApplied(c.not_checked or "its signature was not checked")
    if not c.proof:
        detail = "the CSR's signature does not match its key"
        remedy = "sign the CSR with the key that it is about"
        yield Problem(Code.NO_POSSESSION, detail, remedy, "RFC 2986 section 4.2", c.subject)


def acceptable(c: LintedRequest) -> Iterator[Problem]:
    """A CA of this make would not refuse it, whatever its trust domain, if the ID that it names is granted."""
    wanted = _SOME_ID
    for uri in (c.spiffe_ids or ())[:1]:
        try:
            wanted = SpiffeId.parse(uri)
        except NotASpiffeId as error:
            yield Problem(error.code, str(error), "ask for spiffe://TRUST-DOMAIN/service/NAME")
            return
    try:
        IssuanceRequest.parse(pem(REQUEST, c.der), str(wanted), trust_domain=wanted.trust_domain)
    except Refused as refused:
        for problem in refused.problems:
            if problem.code is not Code.NO_POSSESSION:
                yield evolve(problem, subject=c.subject)


REQUEST_LINTS: tuple[Lint[LintedRequest], ...] = (
    Lint("csr-proof", LintProfile.ANY, "RFC 2986 section 4.2", proof),
    Lint("csr-acceptable", LintProfile.ANY, "what a CA of this make takes", acceptable),
)

_Crl = x509.CertificateRevocationList


def _broken(crl: _Crl, detail: str, section: str, remedy: str = "") -> Problem:
    name = issuer_of_crl(crl)
    rule = f"RFC 5280 section {section}"
    remedy = remedy or "have its issuer make CRLs that keep to RFC 5280"
    return Problem(Code.BAD_CRL, detail, remedy, rule, name)


def issuer_of_crl(crl: _Crl) -> str:
    """Whose it is, for people."""
    return issuer_of(crl)  # type: ignore[arg-type]


def crl_times(crl: _Crl) -> Iterator[Problem]:
    """It says when the next one comes, and that is later."""
    until = crl.next_update_utc
    if until is None:
        yield _broken(crl, "it does not say when the next one comes", "5.1.2.5")
    elif until <= crl.last_update_utc:
        yield _broken(crl, "the next one was due before it was made", "5.1.2.5")


def crl_signature(crl: _Crl) -> Iterator[Problem]:
    """No hash that forgeries were made for."""
    if is_broken(crl):
        detail = "it is signed with SHA-1 or MD5"
        problem = _broken(crl, detail, "5.1.1.2", "have it signed with SHA-256 or better")
        yield evolve(problem, code=Code.WEAK_SIGNATURE, rule="RFC 9155")


def crl_extensions(crl: _Crl) -> Iterator[Problem]:
    """A number and the issuer's key, neither of them critical."""
    for kind, what, section in (
        (x509.CRLNumber, "number", "5.2.3"),
        (x509.AuthorityKeyIdentifier, "authority key identifier", "5.2.1"),
    ):
        if extension(crl, kind) is None:
            yield _broken(crl, f"it has no {what}", section)
        elif crl.extensions.get_extension_for_class(kind).critical:
            yield _broken(crl, f"its {what} is critical", section)


CRL_LINTS: tuple[Lint[_Crl], ...] = (
    Lint("crl-times", LintProfile.ANY, "RFC 5280 section 5.1.2.5", crl_times),
    Lint("crl-signature", LintProfile.ANY, "RFC 9155, RFC 6151", crl_signature),
    Lint("crl-extensions", LintProfile.ANY, "RFC 5280 section 5.2", crl_extensions),
)
