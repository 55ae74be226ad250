"""A TLS handshake that looks at a server: what it speaks, shows and asks for, and whether it takes our certificate.

Nothing is judged in it, so that whatever is shown is seen; and nothing is said after it but the goodbye. In TLS 1.3
a server refuses a client's certificate after the client's handshake is done: so there is one read more (RFC 8446
section 4.4.2), which ends with the alert, or with the server's own goodbye.
"""

from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from ipaddress import ip_address

from attrs import Attribute, define, evolve, field, frozen
from OpenSSL import SSL, crypto

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem, discreet, printable
from pki.inspect.ber import first
from pki.inspect.name_text import name_text
from pki.svid.x509svid import X509Svid
from twisted_mesh.tls import groups
from twisted_mesh.tls.conversation import Conversation, Failed, Target
from twisted_mesh.tls.openssl_errors import from_openssl, reasons_in
from twisted_mesh.tls.private_key import use_key
from twisted_mesh.tls.starttls import STARTTLS

VERSIONS = {
    "1.0": SSL.TLS1_VERSION,
    "1.1": SSL.TLS1_1_VERSION,
    "1.2": SSL.TLS1_2_VERSION,
    "1.3": SSL.TLS1_3_VERSION,
}
#: What is offered where nothing is said, by what is spoken before.
USUAL_ALPN = {"": ("h2", "http/1.1"), "postgres": ("postgresql",)}
#: Also those that nobody should use: what a server takes is to be seen.
_ALL_CIPHERS = b"ALL:!aNULL:@SECLEVEL=0"
_ASKED = b"read server certificate request"
#: How long a server may think about a certificate before we say goodbye, beside the time of two round trips.
_THINKING = 0.2
#: And how long it may take with its own goodbye.
_GOODBYE = 2.0
_MOST_READ = 16384
_MOST_READS = 64
_UNDECODABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed, SSL.Error, crypto.Error)
#: What means that there is no TLS, or nobody any more, in place of a refusal.
AWAY = (Code.UNREACHABLE, Code.INTERRUPTED, Code.NOT_TLS, Code.TLS_ERROR, Code.MALFORMED)


class Answer(StrEnum):
    """What a server says to the certificate that it asked for, or to none."""

    NOT_ASKED = "not-asked"
    ACCEPTED = "accepted"
    """It has gone on, or said goodbye in peace."""
    REFUSED = "refused"
    """It has sent an alert."""
    CLOSED = "closed"
    """It hung up without a word as soon as it had seen it: so do some who refuse."""
    NO_OBJECTION = "no-objection"
    """It waited for what we would say, and did not say goodbye itself."""
    UNKNOWN = "unknown"
    """The handshake did not come to where it would have asked."""


def _check_alpn(_: object, attribute: "Attribute[Sequence[str]]", names: Sequence[str]) -> None:
    for name in names:
        if not name.isascii() or not 0 < len(name) < 256:
            raise Malformed(
                f"--alpn {discreet(name, 60)!r}: a protocol has 1 to 255 letters of ASCII"
            )


@frozen
class Wishes:
    """How the server is to be looked at."""

    servername: str = ""
    """The name in SNI; empty for none."""
    identity: X509Svid | None = None
    alpn: Sequence[str] = field(default=(), validator=_check_alpn)
    version: str = ""
    """The one version of :data:`VERSIONS` that is offered; empty for all."""
    starttls: str = ""
    seconds: float = 10.0


def server_name(host: str, option: str) -> str:
    """``host`` as SNI has it: in ASCII, and nothing for an address (RFC 6066 section 3). Raises :class:`Malformed`."""
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return ""
    try:
        plain = host.encode("idna").decode().removesuffix(".") if host else ""
    except UnicodeError:
        raise Malformed(f"{option}: {discreet(host, 120)!r} is no host name") from None
    return plain


@define(eq=False)
class Probed:
    """What was seen. What could not be is empty or None."""

    target: Target
    address: str = ""
    protocol: str = ""
    """``TLSv1.3``; empty where the handshake failed."""
    cipher: str = ""
    bits: int = 0
    group: str = ""
    alpn: str = ""
    asks: bool = False
    """Whether it asked for a client certificate."""
    named_cas: tuple[str, ...] = ()
    chain: tuple[bytes, ...] = ()
    """In DER, as it was sent."""
    staple: bytes = b""
    answer: Answer = Answer.UNKNOWN
    problem: Problem | None = None
    """Why there is no connection, or none any more."""

    @property
    def is_let_in(self) -> bool:
        """Whether it has not refused us."""
        return self.problem is None


def shake_hands(target: Target, wishes: Wishes, group: str) -> str | None:
    """The group by which the server exchanges keys where ``group`` alone is offered; empty where it refuses to.

    None where that cannot be offered from here. Raises :class:`Failed` where there is nobody who speaks TLS.
    """
    found = Probed(target)
    context = _context(wishes, found)
    if not groups.offer(context, group):
        return None
    talk = Conversation(target, wishes.seconds)
    try:
        talk.connect()
        if wishes.starttls:
            STARTTLS[wishes.starttls](talk)
        connection = _connection(talk, context, wishes)

        def shake() -> bool:
            connection.do_handshake()
            return True

        try:
            if not talk.perform(shake):
                raise talk.silent("the handshake")
        except SSL.Error as error:
            _describe(connection, found)
            problem = _meaning(talk, error, wishes)
            if problem.code in AWAY and not found.group:
                raise Failed(problem) from None
        else:
            _describe(connection, found)
            _say_goodbye(talk, connection)
    finally:
        talk.close()
    return found.group


def probe(target: Target, wishes: Wishes) -> Probed:
    """Look at the server at ``target``. Raises :class:`Failed` where there is nobody who speaks TLS."""
    found = Probed(target)
    talk = Conversation(target, wishes.seconds)
    try:
        talk.connect()
        found.address = talk.peer
        if wishes.starttls:
            STARTTLS[wishes.starttls](talk)
        _look(talk, wishes, found)
    finally:
        talk.close()
    return found


def _look(talk: Conversation, wishes: Wishes, found: Probed) -> None:
    connection = _connection(talk, _context(wishes, found), wishes)

    def shake() -> bool:
        connection.do_handshake()
        return True

    started = talk.clock()
    try:
        done = talk.perform(shake)
    except SSL.Error as error:
        _describe(connection, found)
        problem = _meaning(talk, error, wishes)
        if problem.code in AWAY and not found.asks:
            raise Failed(problem) from None
        found.problem = problem
        if found.asks:
            found.answer = Answer.CLOSED if problem.code in AWAY else Answer.REFUSED
        return
    if not done:
        raise talk.silent("the handshake")
    _describe(connection, found)
    if found.asks:
        _listen(talk, connection, wishes, found, talk.clock() - started)
    else:
        found.answer = Answer.NOT_ASKED
        _say_goodbye(talk, connection)


def _connection(talk: Conversation, context: SSL.Context, wishes: Wishes) -> SSL.Connection:
    connection = talk.attached(context)
    connection.set_connect_state()
    if wishes.servername:
        connection.set_tlsext_host_name(wishes.servername.encode("ascii"))
    connection.request_ocsp()
    return connection


def _context(wishes: Wishes, found: Probed) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # Said, or a machine's openssl.cnf may say something else.
    context.set_min_proto_version(VERSIONS[wishes.version or "1.0"])
    context.set_max_proto_version(VERSIONS[wishes.version or "1.3"])
    context.set_cipher_list(_ALL_CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    if wishes.alpn:
        context.set_alpn_protos([name.encode() for name in wishes.alpn])
    if wishes.identity is not None:
        context.use_certificate(wishes.identity.leaf)
        for certificate in wishes.identity.intermediates:
            context.add_extra_chain_cert(certificate)
        use_key(context, wishes.identity.key)

    def seen(connection: SSL.Connection, where: int, result: int) -> None:
        # What this raises, OpenSSL would lose.
        if where & SSL.SSL_CB_LOOP and _ASKED in connection.get_state_string():
            found.asks = True

    def stapled(connection: SSL.Connection, answer: bytes, data: None) -> bool:
        found.staple = answer
        return True

    context.set_info_callback(seen)
    context.set_ocsp_client_callback(stapled)
    return context


def _describe(connection: SSL.Connection, found: Probed) -> None:
    """What is known of the connection, also of one that came to nothing."""
    if connection.get_cipher_name():
        found.protocol = connection.get_protocol_version_name()
        found.cipher = connection.get_cipher_name() or ""
        found.bits = connection.get_cipher_bits() or 0
        found.group = groups.group_of(connection)
        found.alpn = printable(connection.get_alpn_proto_negotiated().decode("latin-1"), 100)
    chain = connection.get_peer_cert_chain() or ()
    found.chain = tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, cert) for cert in chain)
    try:
        named = [name.der() for name in connection.get_client_ca_list()]
        found.named_cas = tuple(_name_text(der) for der in named)
    except _UNDECODABLE:
        found.named_cas = ("(names that cannot be decoded)",)


def _name_text(der: bytes) -> str:
    return printable(name_text(first(der), lambda _: None, "name"), 400) or "(empty)"


def _listen(
    talk: Conversation,
    connection: SSL.Connection,
    wishes: Wishes,
    found: Probed,
    round_trips: float,
) -> None:
    """Whether it takes what we sent: its alert, its data, or its goodbye."""
    found.answer = Answer.CLOSED
    try:
        thinking = talk.clock() + _THINKING + 2 * round_trips
        if talk.perform(lambda: connection.recv(_MOST_READ), thinking) is not None:
            found.answer = Answer.ACCEPTED
            return
        found.answer = Answer.NO_OBJECTION
        _say_goodbye(talk, connection)
        end = talk.clock() + _GOODBYE
        for _ in range(_MOST_READS):
            if talk.perform(lambda: connection.recv(_MOST_READ), end) is None:
                return
            found.answer = Answer.ACCEPTED
    except SSL.ZeroReturnError:
        found.answer = Answer.ACCEPTED
    except SSL.SysCallError:
        pass  # it hung up
    except SSL.Error as error:
        if "unexpected eof while reading" not in reasons_in(error):
            found.answer, found.problem = Answer.REFUSED, _meaning(talk, error, wishes)
    if found.answer is Answer.CLOSED:
        found.problem = Problem(
            Code.INTERRUPTED,
            f"{talk.target} asked for a certificate, and closed the connection without a word after ours"
            if wishes.identity
            else f"{talk.target} asked for a certificate, got none, and closed the connection without a word",
            "some refuse like that: its log has the reason",
        )


def _say_goodbye(talk: Conversation, connection: SSL.Connection) -> None:
    """Our close_notify. That the other side has gone already is for whoever reads."""

    def shut_down() -> bool:
        connection.shutdown()
        return True

    with suppress(SSL.Error):
        talk.perform(shut_down)


def _meaning(talk: Conversation, error: SSL.Error, wishes: Wishes) -> Problem:
    """What a handshake came to, for whoever only looks: the mesh's own remedies are for those who belong to it."""
    if isinstance(error, SSL.SysCallError | SSL.ZeroReturnError):
        return talk.gone().problem
    problem = from_openssl(error)
    if problem.code is Code.INTERRUPTED:
        return talk.gone().problem
    if problem.code is Code.NOT_TLS:
        return talk.not_spoken("what answers there does not speak TLS").problem
    if problem.code in {Code.TLS_ERROR, Code.MALFORMED}:
        return evolve(problem, detail=f"the handshake with {talk.target} failed: {problem.detail}")
    if problem.code is Code.PROTOCOL_VERSION:
        offered = f"TLS {wishes.version}" if wishes.version else "any version from TLS 1.0 to 1.3"
        return evolve(
            problem,
            detail=f"{talk.target} does not speak {offered}",
            remedy="offer another (--tls)",
        )
    if problem.code is Code.HANDSHAKE_FAILURE:
        return evolve(
            problem,
            detail=f"{talk.target} refused the handshake without saying why",
            remedy="name a host that it serves (--servername), or present a certificate (--svid)",
        )
    if problem.code is Code.NO_CERTIFICATE and wishes.identity is None:
        return evolve(problem, remedy="present a certificate of its mesh (--svid)")
    return problem
