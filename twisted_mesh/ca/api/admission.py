"""The way of a request to its handler: charged, attested, permitted, and only then read.

Each step is a value that only the step before it makes, and all that can be done with one is the next
step. So no other order can be written, and nothing can be left out.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from attrs import evolve, field, frozen
from msgspec import UnsetType

from pki.policy.policy import Action, demand_proof, permit
from pki.policy.principal import Principal
from pki.policy.selector import Selector
from twisted_mesh.api.attestation_messages import AttestationMember
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.ca.api.authentication import Account, Authenticator, principal_of
from twisted_mesh.ca.api.request import Call, Contents, call_of, contents_of, holder_of
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.http.json import BadRequest, parse_json
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.rate_limit import address_key
from twisted_mesh.stores.records import IssuedToken


class ProvingBody(Protocol):
    """The body of a request that may hold a proof of who asks."""

    @property
    def token(self) -> str | None:
        """A join token."""

    @property
    def csr(self) -> str:
        """The request that is to be signed."""

    @property
    def attestation(self) -> AttestationMember | UnsetType:
        """Evidence of a platform."""


@frozen
class Arrived:
    """A request of which is known on whose connection it came, and no more."""

    account: Account
    _evidence: Evidence = field(repr=False)
    _request: SiteRequest = field(repr=False)
    _authenticator: Authenticator = field(repr=False)

    @classmethod
    def on(cls, request: SiteRequest, authenticator: Authenticator) -> "Arrived":
        """Raises :class:`NoProof` where the connection has ended meanwhile."""
        evidence = Evidence.of(
            request.channel.transport,
            request.requestHeaders,
            address_key(request.channel.getPeer()),
        )
        account = authenticator.account(evidence)
        if evidence.process is not None:
            # No network: each user of this machine is in line by itself.
            evidence = evolve(evidence, address=account.proof)
        return cls(account, evidence, request, authenticator)

    def charge(self, throttle: Throttle | None, action: Action | None) -> "Charged":
        """Have its caller pay for it. Raises :class:`RateLimited`.

        ``action`` is None for what there is not: whoever asks for that can ask too often as well.
        """
        if throttle is not None:
            request = self._request
            throttle.charge(
                self.account,
                action,
                request.channel.getPeer(),
                holder_of(request.channel.transport),
            )
        return Charged(self._evidence, self._request, self._authenticator)


@frozen
class Charged:
    """A request that may cost the CA something."""

    _evidence: Evidence = field(repr=False)
    _request: SiteRequest = field(repr=False)
    _authenticator: Authenticator = field(repr=False)

    async def attest(
        self,
        attestors: Attestors,
        lets_in: Callable[[frozenset[Selector]], bool],
        proving: type[ProvingBody] | None = None,
    ) -> "Known":
        """Find out who asks, by all that the request brings.

        ``lets_in`` is :func:`principal_of`'s. ``proving`` is what the body is read as where it may hold a
        proof; a body that is no such thing proves nothing. Raises what attestors raise.
        """
        request = self._request
        contents = None if proving is None else contents_of(request)
        body, unreadable = None, None
        if contents is not None and proving is not None:
            try:
                body = parse_json(contents.body, proving)
            except BadRequest as error:
                unreadable = error
        evidence = self._evidence
        if body is not None:
            evidence = _with_proofs(evidence, body)
        attested = await attestors.attest(evidence)
        principal = principal_of(
            self._authenticator.principal(attested), attested.attestations, lets_in
        )
        tokens = (one.token for one in attested.attestations if one.token is not None)
        return Known(principal, next(tokens, None), request, contents, body, unreadable, attestors)


def _with_proofs(evidence: Evidence, body: ProvingBody) -> Evidence:
    """``evidence`` with what the body holds. Raises :class:`BadRequest` for two proofs that exclude each other."""
    shown = body.attestation
    if isinstance(shown, UnsetType):
        return evidence if body.token is None else evolve(evidence, token=body.token)
    if body.token is not None:
        raise BadRequest(
            HTTPStatus.BAD_REQUEST,
            "a request has a token or an attestation, and not both: send one",
        )
    return evolve(evidence, attestation=shown.evidence, csr=body.csr)


@frozen
class Known:
    """A request of which is known who asks."""

    principal: Principal
    _token: IssuedToken | None = field(repr=False)
    _request: SiteRequest = field(repr=False)
    _contents: Contents | None = field(repr=False)
    _body: ProvingBody | None = field(repr=False)
    _unreadable: BadRequest | None = field(repr=False)
    _attestors: Attestors = field(repr=False)

    def permit(self, action: Action) -> "Permitted":
        """Refuse whoever may not do it to anything at all. Raises :class:`NoProof`, :class:`Forbidden`.

        Raises :class:`BadRequest` where the body may hold a proof, and cannot be read.
        """
        if self._unreadable is not None:
            # A stranger is told that it is one, and no more.
            demand_proof(self.principal, action)
            raise self._unreadable
        permit(self.principal, action)
        return Permitted(
            self.principal,
            self._token,
            self._request,
            self._contents,
            self._body,
            self._attestors,
        )


@frozen
class Permitted:
    """A request whose caller may do what it asks for, to some object at least."""

    principal: Principal
    _token: IssuedToken | None = field(repr=False)
    _request: SiteRequest = field(repr=False)
    _contents: Contents | None = field(repr=False)
    _body: ProvingBody | None = field(repr=False)
    _attestors: Attestors = field(repr=False)

    def read(self, rest: str) -> Call:
        """All that it says. ``rest`` is what its path has for the route's ``*``. Raises :class:`Malformed`."""
        contents = self._contents or contents_of(self._request)
        return call_of(
            self._request,
            contents,
            self.principal,
            rest,
            token=self._token,
            asked=self._body,
            attestors=self._attestors,
        )
