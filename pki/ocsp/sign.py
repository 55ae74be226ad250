"""OCSP answers made: what a CA says about the certificates that a request names (RFC 6960 section 4.2).

Written in DER here, since cryptography's builder answers about one certificate, and takes the time
from a clock of its own. It stays as the oracle of the tests.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import IntEnum, StrEnum

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.codes import Code
from pki.der import (
    BIT_STRING,
    ENUMERATED,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    element,
    generalized_time,
    oid_content,
)
from pki.errors import PkiError
from pki.keys import PublicKey, SigningKey, key_identifier, signature_over, spki_der
from pki.ocsp.request import CertId, Issuer, OcspRequest, is_delegate, nonce_extensions
from pki.svid.names import encoded_subject
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import subject_of, validity_of
from pki.validity import Validity, rfc3339

_BASIC = element(OBJECT_IDENTIFIER, oid_content("1.3.6.1.5.5.7.48.1.1"))
_SUCCESSFUL = element(ENUMERATED, b"\0")
_GOOD, _REVOKED, _UNKNOWN = b"\x80\0", 0xA1, b"\x82\0"
_BY_NAME, _BY_KEY = 0xA1, 0xA2
#: What is the first field of its own that is optional, and the second.
_FIRST, _SECOND = 0xA0, 0xA1


class Standing(StrEnum):
    """How a certificate stands that is not revoked."""

    GOOD = "good"
    UNKNOWN = "unknown"


#: From an issuer's :func:`pki.keys.key_id` and a serial to how that certificate stands.
Lookup = Callable[[str, int], Standing | Revocation]


class ErrorStatus(IntEnum):
    """Why there is no answer; such a response is not signed."""

    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


class UnfitResponder(PkiError):
    """What it would sign, no client would believe."""

    code = Code.OCSP_UNAUTHORIZED_RESPONDER


@frozen
class SingleResponse:
    """What is said about one certificate."""

    cert_id: CertId
    standing: Standing | Revocation
    this_update: datetime
    next_update: datetime


def single_responses(
    request: OcspRequest,
    issuer: Issuer,
    lookup: Lookup,
    *,
    this_update: datetime,
    next_update: datetime,
) -> tuple[SingleResponse, ...]:
    """One for each certificate of the request, in its order; of another CA, a certificate is unknown."""

    def standing(cert_id: CertId) -> Standing | Revocation:
        if not issuer.issued(cert_id):
            return Standing.UNKNOWN
        return lookup(issuer.key_id, cert_id.serial)

    return tuple(
        SingleResponse(cert_id, standing(cert_id), this_update, next_update)
        for cert_id in request.cert_ids
    )


def error_response(status: ErrorStatus) -> bytes:
    """An OCSPResponse that says why there is no answer, in DER."""
    return element(SEQUENCE, element(ENUMERATED, bytes((status,))))


@define(eq=False, repr=False)
class Responder:
    """Who answers for one CA: the CA itself, or a delegate that it has certified.

    Raises :class:`UnfitResponder` where the certificate and key do not make one.
    """

    issuer: x509.Certificate
    key: SigningKey
    certificate: x509.Certificate | None = None
    """The delegate's, which answers then carry; None where the CA's own key signs."""
    by_name: bool = False
    """Whether answers name the responder by its subject; else by its key, which is shorter."""
    identity: Issuer = field(init=False)
    _public_key: PublicKey = field(init=False, repr=False)
    _name: bytes = field(init=False, repr=False)
    _certificates: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        certificate = self.certificate or self.issuer
        self._public_key = self.key.public_key
        spki = spki_der(self._public_key)
        if spki_der(certificate.public_key()) != spki:
            raise UnfitResponder(f"the key does not belong to {subject_of(certificate)}")
        self._certificates = b""
        if self.certificate is not None:
            if not is_delegate(self.certificate, self.issuer):
                raise UnfitResponder(
                    f"{subject_of(self.certificate)} was not made a responder by {subject_of(self.issuer)}: "
                    "have that CA issue it with OCSPSigning"
                )
            der = self.certificate.public_bytes(serialization.Encoding.DER)
            self._certificates = element(_FIRST, element(SEQUENCE, der))
        if self.by_name:
            self._name = element(_BY_NAME, encoded_subject(certificate))
        else:
            self._name = element(_BY_KEY, element(OCTET_STRING, key_identifier(spki)))
        self.identity = Issuer.of(self.issuer)

    @property
    def validity(self) -> Validity:
        """When its answers can be believed."""
        return validity_of(self.certificate or self.issuer)

    async def respond(
        self,
        responses: Iterable[SingleResponse],
        *,
        produced_at: datetime,
        nonce: bytes | None = None,
    ) -> bytes:
        """A signed OCSPResponse, in DER; no answer in it outlives the responder's certificate.

        Raises :class:`UnfitResponder` where that is not valid at ``produced_at``, and
        :class:`pki.keys.SigningFailed`.
        """
        limits = self.validity
        if not limits.contains(produced_at):
            raise UnfitResponder(
                f"the responder's certificate is valid from {rfc3339(limits.not_before)} to "
                f"{rfc3339(limits.not_after)}, and here it is {rfc3339(produced_at)}: issue a new one"
            )
        listed = b"".join(_encoded(response, limits.not_after) for response in responses)
        data = self._name + generalized_time(produced_at) + element(SEQUENCE, listed)
        if nonce is not None:
            data += element(_SECOND, nonce_extensions(nonce))
        tbs = element(SEQUENCE, data)
        signature = await signature_over(tbs, self.key, self._public_key)
        algorithm = self.key.algorithm.identifier
        basic = tbs + algorithm + element(BIT_STRING, b"\0" + signature) + self._certificates
        answer = _BASIC + element(OCTET_STRING, element(SEQUENCE, basic))
        return element(SEQUENCE, _SUCCESSFUL + element(_FIRST, element(SEQUENCE, answer)))


def _encoded(response: SingleResponse, latest: datetime) -> bytes:
    standing = response.standing
    if isinstance(standing, Revocation):
        told = element(_REVOKED, generalized_time(standing.revoked_at) + _reason(standing.reason))
    else:
        told = _GOOD if standing is Standing.GOOD else _UNKNOWN
    next_update = generalized_time(min(response.next_update, latest))
    times = generalized_time(response.this_update) + element(_FIRST, next_update)
    return element(SEQUENCE, response.cert_id.der + told + times)


def _reason(reason: Reason) -> bytes:
    """Left out for ``unspecified``, as in CRLs (RFC 5280 section 5.3.1)."""
    if reason is Reason.UNSPECIFIED:
        return b""
    return element(_FIRST, element(ENUMERATED, bytes((reason.number,))))
