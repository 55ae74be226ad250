"""What is submitted and what is answered (RFC 6962 section 4): JSON, judged, added, and signed for."""

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus

from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from pki.codes import Code
from pki.ct.errors import LogReadOnly, NotAcceptedHere
from pki.ct.sct import SignedCertificateTimestamp
from pki.errors import PkiError
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.ctlog.admission import MOST_CERTIFICATES, admit
from twisted_mesh.ctlog.head_key import HeadKey
from twisted_mesh.ctlog.roots import AcceptedRoots
from twisted_mesh.ctlog.sequencer import Sequencer
from twisted_mesh.ctlog.submitters import Submitters
from twisted_mesh.http.json import BadRequest, parse_json
from twisted_mesh.limits.rate_limit import RateLimited, TokenBuckets

#: Bytes of a request's body, at most.
MAX_BODY = 256 * 1024


#: What becomes of submissions: entries that are new, those that were there, and the codes of refusals.
OUTCOMES = (
    *(
        "new",
        "again",
        Code.NOT_ACCEPTED_HERE,
        Code.NOT_AUTHORIZED,
        Code.LOG_READ_ONLY,
        Code.MALFORMED,
    ),
    *(Code.RATE_LIMITED, Code.BUSY, Code.STATE, Code.CT_LOG_ROLLED_BACK, "other"),
)


class _Chain(Struct):
    chain: list[str]


class Receipt(Struct):
    """What add-chain and add-pre-chain answer."""

    sct_version: int
    id: str
    timestamp: int
    extensions: str
    signature: str

    @classmethod
    def of(cls, sct: SignedCertificateTimestamp) -> "Receipt":
        """That receipt, written so."""
        extensions, signature = _base64(sct.extensions), _base64(sct.signed)
        return cls(0, _base64(sct.log_id), sct.timestamp, extensions, signature)


class Roots(Struct):
    """What get-roots answers."""

    certificates: list[str]


@define(eq=False, repr=False)
class Submissions:
    """The door for those who may add to the log."""

    submitters: Submitters
    roots: AcceptedRoots
    sequencer: Sequencer | None
    """None where the log is read-only."""
    key: HeadKey
    buckets: TokenBuckets
    now: Callable[[], datetime]
    objection: Callable[[], PkiError | None] = lambda: None
    """Why no receipt is given to anybody."""
    outcomes: dict[str, int] = field(factory=lambda: dict.fromkeys(OUTCOMES, 0), init=False)
    """How many of each."""

    async def add(self, body: bytes, shown: SpkiHash | None, *, is_precertificate: bool) -> Receipt:
        """The receipt. Raises :class:`pki.errors.PkiError`."""
        submitter = self.submitters.who(shown)
        if self.sequencer is None:
            raise LogReadOnly(
                "this log is retired: it can be read, and takes nothing more. Submit to another, and take this one out "
                "of --ct-log"
            )
        if (objection := self.objection()) is not None:
            raise objection
        if wait := self.buckets.take(str(submitter)):
            raise RateLimited(
                f"{submitter} may submit {self.buckets.rate.per_second} chains a second, and that is used up",
                wait,
            )
        ders = _decoded(parse_json(body, _Chain).chain)
        self.roots.look()
        admitted = admit(
            ders,
            is_precertificate=is_precertificate,
            submitter=submitter,
            roots=self.roots.of(submitter.trust_domain),
            now=self.now(),
        )
        added = await self.sequencer.add(admitted)
        self.count("new" if added.is_new else "again")
        return Receipt.of(self.key.receipt(added.entry))

    def get_roots(self) -> Roots:
        """Those below which chains are taken."""
        self.roots.look()
        return Roots([_base64(root.public_bytes(Encoding.DER)) for root in self.roots.all()])

    def count(self, outcome: str) -> None:
        """One more came to that."""
        self.outcomes[outcome if outcome in self.outcomes else "other"] += 1


def _decoded(chain: list[str]) -> list[bytes]:
    if len(chain) > MOST_CERTIFICATES:
        raise NotAcceptedHere(
            f"a chain of {len(chain)} certificates is too long: {MOST_CERTIFICATES} is the most"
        )
    try:
        return [base64.b64decode(text.encode("ascii"), validate=True) for text in chain]
    except (UnicodeEncodeError, binascii.Error):
        raise BadRequest(
            HTTPStatus.BAD_REQUEST, "the chain is a list of certificates in DER, each in base64"
        ) from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
