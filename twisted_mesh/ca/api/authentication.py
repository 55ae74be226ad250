"""Authentication: who calls by the socket, by TLS, by the plaintext port, made of what the attestors saw."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from attrs import define, evolve, frozen

from pki.policy.policy import NoProof
from pki.policy.principal import Kind, Principal, administrator, anonymous, workload
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, SpiffePattern
from twisted_mesh.attest.credentials import Credentials
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.entries import RegistrationEntries

#: The user who may do anything on a machine anyway.
_ROOT = 0
_UNKNOWN_PROCESS = "unix:unknown"
_NO_CERTIFICATE = "tls:no-certificate"
_NO_LONGER_VALID = "tls:no-longer-valid"
_REVOKED_ISSUER = "tls:revoked-issuer"
_INSECURE_HTTP = "insecure-http"


@frozen
class Account:
    """Whom a request is charged to, by what the connection itself shows: nothing is looked up for it.

    It lets nobody do anything. What the caller may, the attestors' :class:`Principal` says.
    """

    proof: str
    """As in :attr:`Principal.proof`."""
    kind: Kind
    """Anonymous are all that no connection tells from others, and users of whom entries may say more."""
    is_agent: bool = False
    """Whether it asks for others, who are many."""
    only_renews: bool = False
    """Whether it comes by a CA that is revoked: nobody then, until the record says otherwise, and one of many."""


#: Whoever comes by the plaintext port is the same.
_OF_INSECURE_HTTP = Account(_INSECURE_HTTP, Kind.ADMINISTRATOR)
_BY_INSECURE_HTTP = administrator(_INSECURE_HTTP)


class Authenticator(Protocol):
    """Of one listener: who its callers are."""

    def account(self, evidence: Evidence) -> Account:
        """Whom a request is charged to, by its connection. Raises :class:`NoProof` where that has ended."""

    def principal(self, attested: Attested) -> Principal:
        """Who asks, by what was attested of the connection; the rest is for :func:`principal_of`."""


@define(eq=False, repr=False)
class SocketAuthenticator:
    """The unix socket: processes of this machine, by what the kernel knows of them."""

    entries: RegistrationEntries

    def account(self, evidence: Evidence) -> Account:
        """The user who connected. Raises :class:`NoProof` where the connection is gone."""
        if evidence.process is None:
            return Account(_UNKNOWN_PROCESS, Kind.ANONYMOUS)
        uid = Credentials.of_peer(evidence.process).uid
        kind = Kind.ADMINISTRATOR if _administers(uid) else Kind.ANONYMOUS
        return Account(f"unix:uid:{uid}", kind)

    def principal(self, attested: Attested) -> Principal:
        """An administrator, or a user of whom the entries may know more."""
        seen = next((one for one in attested.attestations if one.uid is not None), None)
        if seen is None or seen.uid is None:
            return anonymous(_UNKNOWN_PROCESS)
        if _administers(seen.uid):
            issues = self.entries.is_effortless
            return administrator(seen.proof, seen.selectors, issues=issues)
        return anonymous(seen.proof, seen.selectors)


@define(eq=False, repr=False)
class TlsAuthenticator:
    """The TLS port: whoever proved an SVID in the handshake, and whoever comes without one."""

    admins: Sequence[SpiffePattern] = ()
    """Who is an administrator besides."""
    monitors: Sequence[SpiffePattern] = ()
    """Who may read how the CA is, and be a workload like any other for the rest."""

    def account(self, evidence: Evidence) -> Account:
        """The SVID's ID while it is good."""
        if evidence.peer is None:
            return Account(_NO_CERTIFICATE, Kind.ANONYMOUS)
        if not evidence.peer.is_good:
            return Account(_NO_LONGER_VALID, Kind.ANONYMOUS)
        if evidence.peer.only_renews:
            # Its ID may be anybody's word: that is for the record to say.
            return Account(_REVOKED_ISSUER, Kind.ANONYMOUS, only_renews=True)
        spiffe_id = evidence.peer.proven.spiffe_id
        kind = Kind.ADMINISTRATOR if self._administers(spiffe_id) else Kind.WORKLOAD
        return Account(f"x509:{spiffe_id}", kind, spiffe_id.agent is not None)

    def principal(self, attested: Attested) -> Principal:
        """A workload, or an administrator by its ID, or nobody.

        What needs no proof is given to whoever had one, too.
        """
        if attested.has_lapsed:
            return anonymous(_NO_LONGER_VALID)
        for seen in attested.attestations:
            if seen.spiffe_id is not None and seen.serial is not None:
                caller = workload(seen.spiffe_id, seen.serial)
                if seen.only_renews:
                    return evolve(caller, only_renews=True)
                if self._administers(seen.spiffe_id):
                    return evolve(caller, kind=Kind.ADMINISTRATOR)
                return evolve(caller, monitors=_any_matches(self.monitors, seen.spiffe_id))
        return anonymous(_NO_CERTIFICATE)

    def _administers(self, spiffe_id: SpiffeId) -> bool:
        return _any_matches(self.admins, spiffe_id)


def _any_matches(patterns: Sequence[SpiffePattern], spiffe_id: SpiffeId) -> bool:
    return any(pattern.matches(spiffe_id) for pattern in patterns)


@define(eq=False, repr=False)
class PlaintextAuthenticator:
    """The loopback port of ``--insecure-http``: whoever reaches it, on the user's own word."""

    def account(self, evidence: Evidence) -> Account:
        """One for all."""
        return _OF_INSECURE_HTTP

    def principal(self, attested: Attested) -> Principal:
        """An administrator."""
        return _BY_INSECURE_HTTP


def of_process(transport: object) -> tuple[str, bool]:
    """Whose a connection on the socket is before it has said a word, and whether that is an administrator's."""
    try:
        process = Evidence.of(transport).process
        uid = None if process is None else Credentials.of_peer(process).uid
    except NoProof:
        uid = None
    return (_UNKNOWN_PROCESS, False) if uid is None else (f"unix:uid:{uid}", _administers(uid))


def principal_of(
    caller: Principal,
    attestations: Iterable[Attestation],
    lets_in: Callable[[frozenset[Selector]], bool],
) -> Principal:
    """Who asks: whom the connection shows, ``caller``, with all else that was attested.

    What binds to one registration entry, as a join token does, counts for that entry alone.
    ``lets_in``: whether somebody with these selectors is a workload of this CA.
    """
    bound: Attestation | None = None
    for seen in attestations:
        if seen.entry is not None:
            bound = seen
        elif not seen.selectors <= caller.selectors:
            caller = _beside(caller, seen)
    if caller.kind is Kind.ANONYMOUS and lets_in(caller.selectors):
        caller = evolve(caller, kind=Kind.WORKLOAD)
    return caller if bound is None else with_token(caller, bound)


def _beside(caller: Principal, seen: Attestation) -> Principal:
    """``caller`` with one more proof; who had proven nothing yet is known by this one alone."""
    proof = f"{caller.proof}, {seen.proof}" if caller.selectors else seen.proof
    return evolve(
        caller,
        proof=proof,
        selectors=caller.selectors | seen.selectors,
        claim=seen.claim or caller.claim,
        claim_until=seen.claim_until if seen.claim else caller.claim_until,
    )


def with_token(principal: Principal, seen: Attestation) -> Principal:
    """``principal`` with what its join token attests; only the token's entry counts then."""
    return evolve(
        principal,
        kind=Kind.WORKLOAD,
        proof=seen.proof,
        spiffe_id=None,
        serial=None,
        selectors=principal.selectors | seen.selectors,
        entry=seen.entry,
        issues=False,
        monitors=False,
        only_renews=False,
    )


def _administers(uid: int) -> bool:
    return uid in (_ROOT, os.geteuid())
