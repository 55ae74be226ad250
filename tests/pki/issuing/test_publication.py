"""Where a CA publishes: URLs that certificates can carry, and those that they cannot."""

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.issuing.publication import Publication


def test_urls_become_extensions_that_are_not_critical_to_anybody() -> None:
    told = Publication("http://ca.example/crl", "http://ca.example/ocsp", "http://ca.example/ca")
    points, access = told.extensions
    assert isinstance(points, x509.CRLDistributionPoints)
    (point,) = points
    assert [name.value for name in point.full_name or ()] == [told.crl_url]
    assert isinstance(access, x509.AuthorityInformationAccess)
    assert [
        (description.access_method, description.access_location.value) for description in access
    ] == [
        (x509.AuthorityInformationAccessOID.OCSP, told.ocsp_url),
        (x509.AuthorityInformationAccessOID.CA_ISSUERS, told.issuer_url),
    ]


def test_what_is_not_published_is_not_told() -> None:
    assert list(Publication().extensions) == []
    (points,) = Publication(crl_url="https://ca.example:8443/crl?issuer=1").extensions
    assert isinstance(points, x509.CRLDistributionPoints)
    (access,) = Publication(issuer_url="http://[::1]/ca").extensions
    assert isinstance(access, x509.AuthorityInformationAccess)


@pytest.mark.parametrize("field", ["crl_url", "ocsp_url", "issuer_url"])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "ca.example/crl",
        "ldap://ca.example/crl",
        "file:///etc/passwd",
        "http://",
        "http:///crl",
        "http://ca.example/a b",
        "http://ca.example/\n",
        "http://ca.example/é",
        "http://ca.example/#x",
        "http://[::1/crl",
        "http://ca.example/" + "x" * 2000,
    ],
)
def test_other_places_are_refused(field: str, url: str) -> None:
    with pytest.raises(Malformed, match=f"no place to publish at .{field}"):
        Publication(**{field: url})


@given(st.text())
def test_text_breaks_only_as_malformed(text: str) -> None:
    for url in (text, f"http://{text}"):
        try:
            told = Publication(url, url, url)
        except PkiError:
            continue
        assert all(value.public_bytes() for value in told.extensions)
