"""Submission to a log (RFC 6962 section 4): what comes back is a receipt that verifies, or an error."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.codes import Code
from pki.ct.entry import SignedEntry, of_certificate, of_precertificate
from pki.ct.errors import BadSct, LogReadOnly, NotAcceptedHere
from pki.ct.log_list import Log
from pki.ct.receipt import verify_sct
from pki.ct.sct import SignedCertificateTimestamp
from pki.errors import HOSTILE_INPUT, Malformed, PkiError, printable
from twisted_mesh.ct.errors import LogUnusable
from twisted_mesh.ct.transport import TIMEOUT, LogTransport, Refusal
from twisted_mesh.ct.urls import submission_url
from twisted_mesh.http.kept_connection import Answered
from twisted_mesh.interfaces import IReactor
from twisted_mesh.tls.self_signed import SelfSigned

T = TypeVar("T")

_LONGEST_RECEIPT = 16 * 1024
#: Bytes of what ``get-roots`` answers.
_LONGEST_ROOTS = 4 * 1024 * 1024
_MOST_ROOTS = 1000
_LOG_ID, _DIGITALLY_SIGNED = 32, 1024
#: Bytes of a receipt's extensions. The index takes 8 (C2SP static-ct-api), and nothing else is known to be in them.
_LONGEST_EXTENSIONS = 64
#: The end of the year 9999, in milliseconds.
_LATEST = 253402300799999


class _Submission(msgspec.Struct):
    chain: list[str]


class _Receipt(msgspec.Struct):
    sct_version: int
    id: str
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=_LATEST)]
    extensions: str
    signature: str


class _Roots(msgspec.Struct):
    certificates: list[str]


@define(eq=False, repr=False)
class LogClient:
    """Submits to one log. Whatever goes wrong is a :class:`PkiError`.

    :class:`LogAway` where the same may succeed later, :class:`NotAcceptedHere` where the log has said no,
    :class:`LogReadOnly` where it says no to everybody. A receipt that does not verify is an error, and never returned.
    """

    log: Log
    reactor: IReactor
    own: SelfSigned | None = None
    """The key that the log's operator has pinned; None where the log takes what comes from anybody."""
    timeout: float = TIMEOUT
    """Seconds for one submission, connecting included."""
    requires_pq: bool = False
    _transport: LogTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._transport = LogTransport(
            self.reactor,
            submission_url(self.log),
            self.log.tls_pins,
            self.own,
            self.timeout,
            self.requires_pq,
        )

    async def add_pre_chain(self, chain: Sequence[x509.Certificate]) -> SignedCertificateTimestamp:
        """The log's receipt for a precertificate, which is first in the chain; its issuer is second."""
        if len(chain) < 2:
            raise Malformed("a precertificate is submitted with its issuer")
        entry = of_precertificate(chain[0], chain[1])
        return await self._add("/ct/v1/add-pre-chain", chain, entry)

    async def add_chain(self, chain: Sequence[x509.Certificate]) -> SignedCertificateTimestamp:
        """The log's receipt for a certificate, which is first in the chain."""
        return await self._add("/ct/v1/add-chain", chain, of_certificate(chain[0]))

    async def get_roots(self) -> Sequence[x509.Certificate]:
        """The roots that a chain has to end in for the log to take it."""
        answered = await self._transport.ask("/ct/v1/get-roots", _LONGEST_ROOTS)
        found = self._read(answered, _Roots).certificates
        if len(found) > _MOST_ROOTS:
            raise LogUnusable(f"{self._where} names more than {_MOST_ROOTS} roots")
        try:
            return [x509.load_der_x509_certificate(_unbase64(text)) for text in found]
        except HOSTILE_INPUT:
            raise LogUnusable(f"{self._where} names a root that is no certificate") from None

    def hang_up(self) -> None:
        """Keep no connection."""
        self._transport.hang_up()

    @property
    def _where(self) -> str:
        return printable(str(self._transport.url), 200)

    async def _add(
        self, path: str, chain: Sequence[x509.Certificate], entry: SignedEntry
    ) -> SignedCertificateTimestamp:
        ders = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain]
        body = msgspec.json.encode(_Submission(ders))
        answered = await self._transport.ask(path, _LONGEST_RECEIPT, method="POST", body=body)
        sct = self._receipt(self._read(answered, _Receipt))
        verify_sct(sct, entry, self.log.key)
        if len(sct.extensions) > _LONGEST_EXTENSIONS:
            raise BadSct(
                f"the receipt (SCT) of {self._where} has {len(sct.extensions)} bytes of extensions, all of which would "
                f"stand in the certificate: {_LONGEST_EXTENSIONS} are the most"
            )
        if sct.leaf_index is None:
            raise BadSct(
                f"the receipt (SCT) of {self._where} does not say where its entry is (C2SP static-ct-api)"
            )
        return sct

    def _receipt(self, told: _Receipt) -> SignedCertificateTimestamp:
        try:
            log_id, extensions, signature = map(
                _unbase64, (told.id, told.extensions, told.signature)
            )
            if told.sct_version != 0 or len(log_id) != _LOG_ID:
                raise ValueError
            if len(extensions) >= 1 << 16 or len(signature) > _DIGITALLY_SIGNED:
                raise ValueError
            # Laid out as RFC 6962 section 3.2 has it, so that there is one reader of receipts.
            data = b"".join(
                (
                    b"\0",
                    log_id,
                    told.timestamp.to_bytes(8, "big"),
                    len(extensions).to_bytes(2, "big"),
                    extensions,
                    signature,
                )
            )
            return SignedCertificateTimestamp.parse(data)
        except (ValueError, PkiError):
            raise LogUnusable(
                f"what {self._where} gives for a receipt is none (RFC 6962 section 4.1)"
            ) from None

    def _read(self, answered: Answered, shape: type[T]) -> T:
        self._transport.refuse_away(answered)
        if answered.status != 200:
            raise self._refusal(answered)
        try:
            return msgspec.json.decode(answered.body, type=shape)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError):
            raise LogUnusable(
                f"what answers at {self._where} is no log: check its URL in the list"
            ) from None

    def _refusal(self, answered: Answered) -> PkiError:
        told = Refusal.of(answered.body)
        said = told.said or "it does not say why"
        kind = LogReadOnly if told.code == Code.LOG_READ_ONLY else NotAcceptedHere
        return kind(f"the log at {self._where} refuses it ({answered.status}): {said}")


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
