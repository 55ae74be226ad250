"""Publication: where a certificate says that its issuer's CRL, OCSP responder and certificate are found."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from pki.errors import Malformed, printable

_LONGEST = 2000


def _check(_: object, attribute: "Attribute[str | None]", url: str | None) -> None:
    if url is None:
        return
    try:
        split = urlsplit(url)
        is_url = split.scheme in ("http", "https") and bool(split.hostname) and not split.fragment
    except ValueError:
        is_url = False
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _LONGEST
    if not (is_url and is_plain):
        raise Malformed(
            f"{printable(url, 120)!r} is no place to publish at ({attribute.name}): "
            "write an http or https URL with a host, like http://ca.example/crl"
        )


@frozen
class Publication:
    """The URLs that certificates carry, each http or https. Raises :class:`Malformed` for others."""

    crl_url: str | None = field(default=None, validator=_check)
    """Of the issuer's CRL, in DER (RFC 5280 section 4.2.1.13)."""
    ocsp_url: str | None = field(default=None, validator=_check)
    """Of the issuer's OCSP responder (section 4.2.2.1)."""
    issuer_url: str | None = field(default=None, validator=_check)
    """Of the issuer's certificate, in DER (section 4.2.2.1)."""

    @property
    def distribution_points(self) -> x509.CRLDistributionPoints | None:
        """The extension of RFC 5280 section 4.2.1.13; None without a CRL's URL."""
        if self.crl_url is None:
            return None
        names = [x509.UniformResourceIdentifier(self.crl_url)]
        return x509.CRLDistributionPoints([x509.DistributionPoint(names, None, None, None)])

    @property
    def information_access(self) -> x509.AuthorityInformationAccess | None:
        """The extension of RFC 5280 section 4.2.2.1; None without a URL for it."""
        places = (
            (AuthorityInformationAccessOID.OCSP, self.ocsp_url),
            (AuthorityInformationAccessOID.CA_ISSUERS, self.issuer_url),
        )
        told = [
            x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
            for method, url in places
            if url is not None
        ]
        return x509.AuthorityInformationAccess(told) if told else None

    @property
    def extensions(
        self,
    ) -> "Iterator[x509.CRLDistributionPoints | x509.AuthorityInformationAccess]":
        """Those that it takes; none of them is critical."""
        if points := self.distribution_points:
            yield points
        if access := self.information_access:
            yield access
