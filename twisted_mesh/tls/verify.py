"""The verify callback: how a connection's peer is judged inside the handshake.

OpenSSL's refusal stays a refusal, but for a root that we know by its fingerprint and OpenSSL not at
all; our own verdict comes at depth 0. An error of ours shuts the door.
The reason is kept in the connection's :class:`Handshake`, since the wire only carries an alert.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from weakref import WeakKeyDictionary

from attrs import define, field
from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL.SSL import X509VerificationCodes as Codes

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem, printable
from pki.svid.chain import Verdict, crowd_problem
from pki.svid.pin import RootPin
from pki.svid.x509svid import Purpose
from twisted_mesh.runtime.log import TlsFacts, logger
from twisted_mesh.tls import groups, x509_store_ctx
from twisted_mesh.trust.connections import Peer, ProvenPath
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.judgement import Judgement

_log = logger("tls")

#: X509_V_ERR_OCSP_VERIFY_NEEDED, which pyOpenSSL does not name. The peer hears certificate_unknown, which says
#: nothing against its certificate.
_OCSP_VERIFY_NEEDED = 73
#: X509_V_ERR_APPLICATION_VERIFICATION, which says nothing of a certificate: the peer hears handshake_failure, as from
#: OpenSSL where it finds no group.
_APPLICATION_VERIFICATION = 50
#: What OpenSSL is told about our own refusals, so that the peer gets the alert that fits
#: (ssl/statem/statem_lib.c maps X509_V_ERR_* to alerts). Everything else is :data:`_CERT_REJECTED`: bad_certificate.
_X509_ERRORS: Mapping[str, int] = {
    Code.EXPIRED: Codes.ERR_CERT_HAS_EXPIRED,
    Code.NOT_YET_VALID: Codes.ERR_CERT_NOT_YET_VALID,
    Code.REVOKED: Codes.ERR_CERT_REVOKED,
    Code.UNKNOWN_AUTHORITY: Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Code.INCOMPLETE_CHAIN: Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Code.ISSUER_MISMATCH: Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Code.BAD_SIGNATURE: Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Code.UNKNOWN_TRUST_DOMAIN: Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Code.WRONG_FINGERPRINT: Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Code.WRONG_USAGE: Codes.ERR_INVALID_PURPOSE,
    Code.STALE_REVOCATION: _OCSP_VERIFY_NEEDED,
    Code.CLASSICAL_KEY_EXCHANGE: _APPLICATION_VERIFICATION,
}
_CERT_REJECTED: int = Codes.ERR_CERT_REJECTED
_NO_STAPLE = Problem(
    Code.STAPLE_MISSING,
    "the server staples no OCSP answer to its certificate, and --require-staple demands one",
    "look in its log why its CA gives it none, or call it without that option",
    "RFC 6066 section 8",
)
#: The chain ends in a root, and OpenSSL does not hold it.
_ROOT_NOT_HELD = Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN
#: OpenSSL's objections to where a chain ends; what it shows then is the last certificate.
_ABOUT_THE_TOP = {
    _ROOT_NOT_HELD,
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
}

#: OpenSSL's own refusals, in the words of ours. Met only where our verdict had nothing to say.
_CODES: Mapping[int, Code] = {
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: Code.INCOMPLETE_CHAIN,
    Codes.ERR_CERT_NOT_YET_VALID: Code.NOT_YET_VALID,
    Codes.ERR_CERT_HAS_EXPIRED: Code.EXPIRED,
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: Code.UNKNOWN_AUTHORITY,
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: Code.UNKNOWN_AUTHORITY,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: Code.UNKNOWN_AUTHORITY,
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: Code.INCOMPLETE_CHAIN,
    Codes.ERR_CERT_REVOKED: Code.REVOKED,
    Codes.ERR_INVALID_CA: Code.NOT_A_CA,
    Codes.ERR_PATH_LENGTH_EXCEEDED: Code.PATH_TOO_LONG,
    Codes.ERR_INVALID_PURPOSE: Code.WRONG_USAGE,
}

#: A demand on a peer's leaf besides that it is good by itself: its host name, say. None where it is met.
LeafCheck = Callable[[x509.Certificate], Problem | None]


@define(eq=False)
class Handshake:
    """One connection's handshake: what was presented, and what was decided."""

    judge: Judge
    purpose: Purpose
    """What the peer's certificate must serve for."""
    leaf_checks: Sequence[LeafCheck] = ()
    requires_staple: bool = False
    """Whether a server must staple its CA's word that it is not revoked."""
    explains: bool = False
    """Whether a peer that is good and merely not allowed is told so inside TLS, and not by an alert."""
    requires_pq: bool = False
    """Whether keys must have been exchanged by a hybrid group, whoever the peer is."""
    is_turned_away: bool = field(default=False, init=False)
    """Whether its handshake goes on for that alone: it is not accepted any more, whatever changes."""
    is_stapled: bool = field(default=False, init=False)
    verdict: Verdict | None = field(default=None, init=False)
    problems: tuple[Problem, ...] = field(default=(), init=False)
    presented: Sequence[bytes] = field(default=(), init=False)
    generation: int = field(default=0, init=False)
    """Of the trust that the verdict was given under."""
    _judgement: Judgement | None = field(default=None, init=False)
    """The verdict, and for how long it is one."""
    _pin: RootPin | None = field(init=False)
    """As it was when the connection began, and its context was built."""

    def __attrs_post_init__(self) -> None:
        self._pin = self.judge.pin

    def renew(self) -> None:
        """Judge again if anything has changed since: a peer may take its time to finish."""
        if self.holds:
            return
        before = self.verdict, self.problems
        is_new = self.generation != self.judge.trust.generation
        if self.accepted or (is_new and self.is_merely_not_allowed):
            self.decide(self.presented)
        if self.is_turned_away and not self.problems:
            self.verdict, self.problems = before  # who may by now has to come again

    @property
    def accepted(self) -> bool:
        """Whether the peer was judged, and nothing was found against it."""
        return self._is_good and not self.is_turned_away

    @property
    def _is_good(self) -> bool:
        return self.verdict is not None and self.verdict.ok and not self.problems

    @property
    def holds(self) -> bool:
        """Whether the peer was accepted, and nothing has changed since that could have it refused now.

        :attr:`leaf_checks` are not made again: they are about the leaf and nothing else.
        """
        judgement = self._judgement
        return (
            judgement is not None
            and self.verdict is judgement.verdict
            and not self.problems
            and not self.is_turned_away
            and self.judge.still_holds(judgement)
        )

    @property
    def is_merely_not_allowed(self) -> bool:
        """Whether the peer is who it says, and nothing is wrong but that it may not connect: by name, or by policy."""
        return (
            self.verdict is not None
            and self.verdict.spiffe_id is not None
            and len(self.problems) == 1
            and self.problems[0].code in _MERELY_NOT_ALLOWED
            # By all rules together, or by those of the port that it has called.
            and self.verdict.problems in ((), self.problems)
        )

    def is_classical(self, connection: SSL.Connection) -> bool:
        """Whether its keys were not exchanged by a hybrid group; then it is refused for that, whoever the peer is."""
        problem = groups.objection(connection)
        if problem is not None:
            self.verdict, self.problems = None, (problem,)
        return problem is not None

    def turn_away(self) -> bool:
        """Go on with a peer that is merely not allowed, to tell it so; whether it is one, and is told here."""
        if not self.explains or not self.is_merely_not_allowed:
            return False
        self.is_turned_away = True
        return True

    def decide(self, presented: Sequence[bytes]) -> bool:
        """Judge the whole chain, in DER, leaf first; whether nothing is found against it."""
        generation = self.judge.trust.generation
        self._judgement = judgement = self.judge.judgement(presented, self.purpose)
        # Whoever comes with the same certificates shares them in memory too.
        self.presented, self.generation = judgement.presented or presented, generation
        self.verdict = verdict = judgement.verdict
        self.problems = verdict.problems
        if self.leaf_checks and verdict.path:
            unmet = [check(verdict.path[0]) for check in self.leaf_checks]
            self.problems = (*verdict.problems, *filter(None, unmet))
        return self._is_good

    @property
    def path(self) -> ProvenPath | None:
        """What the peer's right rests on, shared by all who rest on it."""
        return None if self.verdict is None or self._judgement is None else self._judgement.path

    def judge_staple(self, answer: bytes) -> bool:
        """Judge what the server has stapled to a certificate that is good so far; empty is nothing."""
        if self.verdict is None or not self.accepted:
            return False
        if answer:
            leaf, issuer, *_ = self.verdict.path
            self.problems = tuple(self.judge.objections(answer, leaf, issuer))
            self.is_stapled = not self.problems
        elif self.requires_staple:
            self.problems = (_NO_STAPLE,)
        return self.accepted

    def waives(self, errno: int, shown: bytes) -> bool:
        """Whether OpenSSL objects to nothing but not holding the very root that is pinned.

        The verdict is still to come: this lets OpenSSL go on to the signatures and to the leaf.
        """
        return errno == _ROOT_NOT_HELD and self._pin is not None and not self._pin.objection(shown)

    def refused_by_openssl(self, errno: int, presented: Sequence[bytes], shown: bytes) -> None:
        """OpenSSL said no of the certificate ``shown``; say why in full, by our own verdict if that finds anything."""
        if presented:
            self.decide(presented)
        elif self._pin is not None and errno in _ABOUT_THE_TOP:
            objection = self._pin.objection(shown)
            self.problems = (objection,) if objection else ()
        self.verdict = None
        if not self.problems:
            self.problems = (openssl_problem(errno),)


def openssl_problem(errno: int) -> Problem:
    """An objection of OpenSSL's, by its number ``X509_V_ERR_…``."""
    return Problem(
        _CODES.get(errno, Code.BAD_CERTIFICATE),
        f"OpenSSL refuses the certificate: {x509_store_ctx.error_text(errno)}",
        "look at it with pki-inspect verify",
    )


#: Why a peer may not connect that is who it says.
_MERELY_NOT_ALLOWED = (Code.NOT_AUTHORIZED, Code.POLICY_DENIED)
#: The attribute of a connection that has its handshake: its app data belongs to Twisted.
_HANDSHAKE = "_mesh_handshake"


def begin(connection: SSL.Connection, handshake: Handshake) -> None:
    """Have the verify callback of ``connection`` keep its decision in ``handshake``."""
    setattr(connection, _HANDSHAKE, handshake)


def handshake_of(connection: SSL.Connection) -> Handshake:
    """The handshake that :func:`begin` was told of."""
    handshake: Handshake = getattr(connection, _HANDSHAKE)
    return handshake


def refuse(connection: SSL.Connection, problem: Problem) -> None:
    """Have the peer of ``connection`` refused for that reason, whatever was found before."""
    handshake: Handshake | None = getattr(connection, _HANDSHAKE, None)
    if handshake is not None:
        handshake.problems = (problem,)


def peer_of(connection: SSL.Connection, handshake: Handshake) -> Peer:
    """Who has proven itself, and how."""
    path = handshake.path
    if path is None:
        raise RuntimeError("a peer was accepted without a name")
    facts = partial(_facts, connection, path)
    return Peer(path.spiffe_id, path.certificates, facts, handshake.generation, path)


def _facts(connection: SSL.Connection, path: ProvenPath) -> TlsFacts:
    """What TLS has agreed on, for people."""
    agreed = (
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        groups.group_of(connection),
        connection.get_servername() or b"",
        connection.get_alpn_proto_negotiated(),
    )
    return _facts_of(agreed, path.shown)


@lru_cache(maxsize=1024)
def _facts_of(
    agreed: tuple[str, str, str, bytes, bytes], shown: tuple[tuple[str, ...], tuple[str, ...]]
) -> TlsFacts:
    """Peers come back, and share it."""
    version, cipher, group, sni, alpn = agreed
    return TlsFacts(
        version=version.replace("TLSv", "TLS "),
        cipher=cipher,
        group=group,
        sni=printable(sni.decode("ascii", "replace")),
        alpn=alpn.decode("ascii", "replace"),
        chain=shown[0],
        serials=shown[1],
    )


def judge_again(connection: SSL.Connection) -> Handshake:
    """Judge the peer of an established connection by what is believed now.

    The callback saw the chain that OpenSSL built. Where that one is good no longer, all that the
    peer sent is looked at: there may be a path to another root in it.
    """
    handshake = handshake_of(connection)
    if handshake.holds:
        return handshake
    if not handshake.decide(handshake.presented) and not handshake.is_merely_not_allowed:
        sent = [_der(cert) for cert in connection.get_peer_cert_chain() or ()]
        if any(cert not in handshake.presented for cert in sent):
            leaf = handshake.presented[0]
            handshake.decide((leaf, *(cert for cert in sent if cert != leaf)))
    return handshake


def refuse_crowd(connection: SSL.Connection) -> Problem | None:
    """Refuse a peer that sent more certificates than a chain has, whatever OpenSSL made of them; why, or None.

    The callback sees the chain that OpenSSL built, and what else was sent only once the handshake is done.
    """
    sent = x509_store_ctx.sent(connection)
    if sent is not None and crowd_problem(sent + 1) is None:
        return None  # with or without the leaf
    handshake = handshake_of(connection)
    chain = connection.get_peer_cert_chain() or ()
    # A server's OpenSSL counts without the leaf, a client's with it.
    has_leaf = bool(chain and handshake.presented and _der(chain[0]) == handshake.presented[0])
    problem = crowd_problem(len(chain) + (not has_leaf))
    if problem is not None:
        handshake.problems = (problem,)
    return problem


def decide(
    connection: SSL.Connection,
    ok: bool,
    errno: int,
    depth: int,
    chain: Callable[[], Mapping[int, bytes]],
) -> int:
    """What the callback answers: 0 to go on, else the X509_V_ERR code to refuse with. Never raises.

    ``chain`` has the certificates in DER by depth, from the leaf up as far as they are known.
    """
    try:
        if ok and depth:
            return 0
        handshake = handshake_of(connection)
        if handshake.requires_pq and handshake.is_classical(connection):
            return _X509_ERRORS[Code.CLASSICAL_KEY_EXCHANGE]
        known = chain()
        # Before the leaf has been shown there is nothing to judge.
        presented = list(known.values()) if 0 in known else []
        if not ok:
            shown = known.get(depth, b"")
            if handshake.waives(errno, shown):
                return 0
            handshake.refused_by_openssl(errno, presented, shown)
            return errno or _CERT_REJECTED
        if handshake.decide(presented) or handshake.turn_away():
            return 0
        return _X509_ERRORS.get(handshake.problems[0].code, _CERT_REJECTED)
    except ANY_ERROR:
        _log.failure("the verify callback broke; the peer is refused", event="verify-broke")
        return _CERT_REJECTED


def _ders(certificates: Mapping[int, crypto.X509]) -> Mapping[int, bytes]:
    return {at: _der(certificate) for at, certificate in sorted(certificates.items())}


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def install(context: SSL.Context, *, demanded: bool, exact_alerts: bool = True) -> None:
    """Have every connection of ``context`` verify its peer by :func:`decide`.

    ``demanded``: a peer without a certificate is refused. ``exact_alerts`` tells a refused peer the
    right alert through pyOpenSSL's cffi layer; without it, or where that layer has changed, the
    public API is used and every refusal of ours is ``internal_error`` on the wire.
    """
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if demanded else 0)
    seen: WeakKeyDictionary[SSL.Connection, dict[int, crypto.X509]] = WeakKeyDictionary()

    def callback(
        connection: SSL.Connection, cert: crypto.X509, errno: int, depth: int, ok: int
    ) -> bool:
        collected = seen.setdefault(connection, {})
        collected[depth] = cert
        return decide(connection, bool(ok), errno, depth, lambda: _ders(collected)) == 0

    context.set_verify(mode, callback)
    if exact_alerts:
        x509_store_ctx.install(context, mode, decide)
