"""CRLs made: a CA's complete list of what it has revoked, signed (RFC 5280 section 5).

Written in DER here: through cryptography's builder each entry is an object, and takes five times as
long. The builder stays as the oracle of the tests.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from cryptography import x509

from pki.codes import Code
from pki.crl.entries import encode_entries
from pki.der import OCTET_STRING, SEQUENCE, element, integer, time
from pki.errors import Problem
from pki.issuing.lint import LintFailed
from pki.issuing.unsigned import assemble
from pki.keys import SigningKey, key_identifier, signature_over, spki_der
from pki.svid.names import encoded_subject
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import extension

_LONGEST_NUMBER = 159
_V2 = integer(1)
_EXTENSIONS = 0xA0
_AUTHORITY_KEY_IDENTIFIER = bytes.fromhex("0603551d23")
_NUMBER = bytes.fromhex("0603551d14")


class CrlIssuer(Protocol):
    """A CA that signs CRLs: an :class:`pki.issuing.authority.Authority`."""

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own: its subject is the list's issuer."""
        ...

    @property
    def key(self) -> SigningKey:
        """The key of that certificate."""
        ...

    @property
    def key_id(self) -> str:
        """The issuer as revocations name it."""
        ...


async def issue_crl(
    issuer: CrlIssuer,
    revoked: Iterable[Revocation],
    number: int,
    *,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """A CRL in DER of those of ``revoked`` that ``issuer`` has issued: equal ones give equal bytes to sign.

    Times are cut to whole seconds. Raises :class:`pki.issuing.lint.LintFailed` and
    :class:`pki.keys.SigningFailed`.
    """
    entries = encode_entries(r for r in revoked if r.issuer == issuer.key_id)
    return await sign_crl(issuer, entries, number, this_update=this_update, next_update=next_update)


async def sign_crl(
    issuer: CrlIssuer,
    entries: bytes,
    number: int,
    *,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """The same, of entries that :func:`pki.crl.entries.encode_entries` has written.

    They may be in several pieces, one after the other, as long as no serial is there twice: who
    signs a long list anew for each entry that it grows by need not write all of it anew.
    """
    certificate, key = issuer.certificate, issuer.key
    usage = extension(certificate, x509.KeyUsage)
    problems = []
    if usage is None or not usage.crl_sign:
        problems.append(_broken("the issuer may not sign CRLs", "4.2.1.3"))
    if not 0 <= number < 1 << _LONGEST_NUMBER:
        problems.append(_broken("a CRL number is positive and has at most 20 bytes", "5.2.3"))
    if not this_update < next_update:
        problems.append(_broken("the next update comes after this one", "5.1.2.5"))
    if problems:
        raise LintFailed(problems)
    identifier = extension(certificate, x509.SubjectKeyIdentifier)
    digest = identifier.digest if identifier else key_identifier(spki_der(key.public_key))
    algorithm = key.algorithm.identifier
    tbs = lay_out_crl(
        algorithm,
        encoded_subject(certificate),
        digest,
        entries,
        number,
        this_update=this_update,
        next_update=next_update,
    )
    return assemble(tbs, algorithm, await signature_over(tbs, key, key.public_key))


def lay_out_crl(
    algorithm: bytes,
    issuer: bytes,
    identifier: bytes,
    entries: bytes,
    number: int,
    *,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """A TBSCertList (RFC 5280 section 5.1.2), of parts in DER and the issuer's subject key identifier."""
    fields = (
        _V2,
        algorithm,
        issuer,
        time(this_update),
        time(next_update),
        element(SEQUENCE, entries) if entries else b"",
        element(_EXTENSIONS, element(SEQUENCE, _own_extensions(identifier, number))),
    )
    return element(SEQUENCE, b"".join(fields))


def _own_extensions(identifier: bytes, number: int) -> bytes:
    """Both that RFC 5280 demands of every CRL (section 5.2); neither is critical."""
    name = x509.AuthorityKeyIdentifier(identifier, None, None).public_bytes()
    return b"".join(
        element(SEQUENCE, oid + element(OCTET_STRING, value))
        for oid, value in ((_AUTHORITY_KEY_IDENTIFIER, name), (_NUMBER, integer(number)))
    )


def _broken(detail: str, section: str) -> Problem:
    remedy = "this is a bug of the CA: report it"
    return Problem(Code.LINT, detail, remedy, f"RFC 5280 section {section}", "CRL")
