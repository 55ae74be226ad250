"""The keys of one issuer of tokens: a JWKS (RFC 7517), from a file or from where the CA's configuration says.

Fetched when somebody asks and what is held is old, by one question for all who wait; kept while the issuer is away,
for a time; asked for again when a token names a key that is not held, since the issuer may have changed its keys, but
not more often than a forger's tokens may have us ask.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Self

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pki.codes import Code
from pki.errors import ANY_ERROR, Malformed, PkiError, discreet, printable
from pki.jwt_svid.compact import BadJwt, strict_object
from pki.jwt_svid.jwks import JwtAuthority, authority_of
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence
from twisted_mesh.http.https_client import HttpsClient, WebUrl
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn

_log = logger("attest")

#: Bytes of a document: those of the large issuers, certificates and all, have a tenth of it.
LARGEST_JWKS = 128 * 1024
MOST_KEYS = 100
_LARGEST_DISCOVERY = 64 * 1024
DISCOVERY_PATH = "/.well-known/openid-configuration"
#: Seconds after which the keys are asked for again, while they are still used.
REFRESH_AFTER = 300.0
#: Seconds for which they are used if the issuer does not answer.
USABLE_FOR = 6 * 3600.0
#: Seconds between two questions because of a key that nobody knows.
ASK_AGAIN_AFTER = 10.0
#: Seconds until it is tried again after a failure: twice as long each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
#: How many callers wait for one answer.
MOST_WAITING = 500


class BadJwks(Malformed):
    """The document is no JWKS that is taken here."""

    code = Code.MALFORMED


@frozen
class KeySet:
    """The keys in one document, by their names: those that verify signatures, and are not weak."""

    keys: Mapping[str, JwtAuthority] = field(factory=dict)
    doubled: frozenset[str] = frozenset()
    """Names that several keys have, none of which is believed."""

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """What is for something else, damaged or weak is passed over. Raises :class:`BadJwks`."""
        if len(document) > LARGEST_JWKS:
            raise BadJwks(f"the JWKS has over {LARGEST_JWKS} bytes")
        try:
            found = strict_object(document, "JWKS").get("keys")
        except BadJwt as error:
            raise BadJwks(str(error)) from None
        if not isinstance(found, list):
            raise BadJwks("the JWKS has no list of keys (RFC 7517 section 5)")
        if len(found) > MOST_KEYS:
            raise BadJwks(f"the JWKS has {len(found)} keys: at most {MOST_KEYS} are taken")
        # A name counts as given twice whatever the keys are: which of them is meant must not depend on who reads it.
        signing = [jwk for jwk in found if isinstance(jwk, dict) and _verifies(jwk)]
        names = Counter(kid for jwk in signing if isinstance(kid := jwk.get("kid"), str))
        doubled = frozenset(kid for kid, count in names.items() if count > 1)
        keys = (authority_of(jwk) for jwk in signing)
        return cls({key.kid: key for key in keys if key and key.kid not in doubled}, doubled)

    def get(self, kid: str) -> JwtAuthority | None:
        """None where it has no such key. Raises :class:`BadEvidence` where it has two."""
        if kid in self.doubled:
            raise BadEvidence(
                f"the issuer gives the name {discreet(kid, 80)} to several keys: none of them is believed; tell "
                "whoever runs the issuer"
            )
        return self.keys.get(kid)

    async def find(self, kid: str) -> JwtAuthority:
        """For keys from a file: see :class:`~twisted_mesh.attest.jwt_evidence.KeySource`."""
        key = self.get(kid)
        if key is None:
            raise _unknown(kid, "the file of its issuer's keys")
        return key


def _verifies(jwk: Mapping[str, object]) -> bool:
    """Whether it is for signatures (RFC 7517 sections 4.2 and 4.3), or for nothing in particular; no private key."""
    operations = jwk.get("key_ops")
    return (
        "d" not in jwk
        and jwk.get("use", "sig") == "sig"
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
    )


def _unknown(kid: str, where: str) -> BadEvidence:
    return BadEvidence(
        f"the token says that the key {discreet(kid, 80)} has signed it, and {where} has no such key that is strong "
        "enough and for signatures; where the issuer has changed its keys, it is looked up again by itself"
    )


@frozen
class JwksAddress:
    """Where an issuer's keys are: at a URL, or where the issuer's own discovery document says."""

    issuer: str
    url: WebUrl | None = None
    """None for what OpenID Connect Discovery (section 4) says there."""

    def discovery(self) -> WebUrl:
        """Of the issuer, whose URL it is below. Raises :class:`Malformed`."""
        return WebUrl.parse(f"{self.issuer.removesuffix('/')}{DISCOVERY_PATH}", "issuer")

    async def fetch(self, client: HttpsClient) -> bytes:
        """The document. Raises :class:`PkiError`."""
        return await client.get(self.url or await self._discovered(client), LARGEST_JWKS)

    async def _discovered(self, client: HttpsClient) -> WebUrl:
        place = self.discovery()
        try:
            found = strict_object(await client.get(place, _LARGEST_DISCOVERY), "discovery document")
        except BadJwt as error:
            raise BadJwks(f"{place}: {error}") from None
        if found.get("issuer") != self.issuer:
            raise BadJwks(f"{place} is the document of another issuer: it must say {self.issuer}")
        uri = found.get("jwks_uri")
        if not isinstance(uri, str):
            raise BadJwks(f"{place} does not say where the keys are: it has no jwks_uri")
        url = WebUrl.parse(uri, f"the jwks_uri of {place}")
        if url.origin != place.origin:
            raise BadJwks(
                f"{place} says that the keys are at {printable(uri, 200)}, on another host: if that is right, "
                "configure it as jwks_url"
            )
        return url


@define(eq=False, repr=False)
class Jwks:
    """The keys of an issuer on the network, as they are now: a
    :class:`~twisted_mesh.attest.jwt_evidence.KeySource`."""

    address: JwksAddress
    client: HttpsClient
    clock: IReactorTime
    _held: KeySet | None = field(default=None, init=False)
    _fetched_at: float = field(default=0.0, init=False)
    _asked_at: float | None = field(default=None, init=False)
    """When it was last begun."""
    _failures: int = field(default=0, init=False)
    """Since the last success."""
    _why: str = field(default="", init=False)
    _is_asking: bool = field(default=False, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    async def find(self, kid: str) -> JwtAuthority:
        """The key of that name, asked for where it is not known."""
        held = self._usable()
        if held is not None and (key := held.keys.get(kid)) is not None:
            if self._age() >= REFRESH_AFTER and self._may_ask():
                self._begin()
            return key
        if self._is_asking or self._may_ask():
            await self._next_answer()
            held = self._usable()
        if held is not None and (key := held.get(kid)) is not None:
            return key
        if held is None or self._failures:
            raise self._away()
        raise _unknown(kid, discreet(self.address.issuer, 200))

    def _age(self) -> float:
        return self.clock.seconds() - self._fetched_at

    def _usable(self) -> KeySet | None:
        return self._held if self._held is not None and self._age() < USABLE_FOR else None

    def _pause(self) -> float:
        """Seconds from one question to the next."""
        if not self._failures:
            return ASK_AGAIN_AFTER
        return float(min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE))

    def _may_ask(self) -> bool:
        if self._is_asking:
            return False
        return self._asked_at is None or self.clock.seconds() >= self._asked_at + self._pause()

    def _away(self) -> AttestorUnavailable:
        why = f" ({self._why})" if self._why else ""
        left = 1.0
        if self._asked_at is not None and not self._is_asking:
            left = max(1.0, self._asked_at + self._pause() - self.clock.seconds())
        return AttestorUnavailable(
            f"the keys of {discreet(self.address.issuer, 200)} are not to be had now{why}: nothing of it can be "
            "verified until it answers",
            left,
        )

    async def _next_answer(self) -> None:
        """Wait for the answer to the present question, for which it begins one where there is none."""
        if len(self._waiting) >= MOST_WAITING:
            raise self._away()
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        try:
            if not self._is_asking:
                self._begin()
            await waiter
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _begin(self) -> None:
        # It is nobody's own: who gives up waiting does not end it for the others.
        self._is_asking, self._asked_at = True, self.clock.seconds()
        _ = spawn(self._fetch(), "fetching an issuer's keys")

    async def _fetch(self) -> None:
        try:
            self._take(KeySet.parse(await self.address.fetch(self.client)))
        except PkiError as error:
            self._fail(printable(str(error), 300))
        except ANY_ERROR:
            _log.failure("fetching keys broke", event="jwks-broke", issuer=self.address.issuer)
            self._fail("see the log")
        finally:
            self._is_asking = False
            for waiter in tuple(self._waiting):
                if not waiter.called:
                    waiter.callback(None)

    def _take(self, found: KeySet) -> None:
        before = self._held
        self._held, self._fetched_at = found, self.clock.seconds()
        self._failures, self._why = 0, ""
        if before is None or before.keys != found.keys or before.doubled != found.doubled:
            _log.info(
                "The keys of {issuer}: {kids}",
                event="jwks-fetched",
                issuer=self.address.issuer,
                kids=printable(", ".join(sorted(found.keys)) or "none", 400),
                doubled=printable(", ".join(sorted(found.doubled)), 400),
            )

    def _fail(self, why: str) -> None:
        self._failures += 1
        # Once for each reason: it may go on for hours.
        if why != self._why:
            _log.warn(
                "The keys of {issuer} could not be fetched: {why}",
                event="jwks-away",
                issuer=self.address.issuer,
                why=why,
            )
        self._why = why
