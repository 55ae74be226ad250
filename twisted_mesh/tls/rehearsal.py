"""A handshake with oneself, in memory: whether a context can shake hands at all, before anybody is told so.

What OpenSSL is configured to (``OPENSSL_CONF``, a distribution's policy) is heard of in the handshake only: a port
that listens with a context that nobody can use looks well from outside.
"""

import os
from collections.abc import Sequence
from contextlib import suppress

from OpenSSL import SSL

from pki.codes import Code
from pki.errors import PkiError, Problem, printable
from pki.svid.x509svid import Purpose, X509Svid
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.tls import groups, verify
from twisted_mesh.tls.contexts import Role
from twisted_mesh.tls.private_key import use_key
from twisted_mesh.tls.verify import Handshake
from twisted_mesh.trust.judge import Judge

#: Each side speaks twice at most; then TLS 1.3 is done.
_TURNS = 8
_RECORD = 2**16


class CannotShakeHands(PkiError):
    """OpenSSL lets nobody shake hands with our certificate, not even ourselves."""

    def __init__(self, reason: str) -> None:
        configured = os.environ.get("OPENSSL_CONF")
        where = f"OPENSSL_CONF={printable(configured, 200)}" if configured else "its openssl.cnf"
        self._problem = Problem(
            Code.TLS_ERROR,
            f"a TLS 1.3 handshake of this process with itself fails: {printable(reason, 200)}",
            f"look what this machine's OpenSSL is configured to by {where}",
        )
        super().__init__(str(self._problem).partition(": ")[2])

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The one that is known."""
        return (self._problem,)


class _Rehearsal(Handshake):
    """Takes whoever comes: we ourselves do, and our certificate has been judged before."""

    def decide(self, presented: Sequence[bytes]) -> bool:
        return True

    def waives(self, errno: int, shown: bytes) -> bool:
        return True

    def judge_staple(self, answer: bytes) -> bool:
        return True


def rehearse(context: SSL.Context, role: Role, svid: X509Svid) -> None:
    """Shake hands once over ``context``, which presents ``svid``. Raises :class:`CannotShakeHands`."""
    try:
        connection = SSL.Connection(context, None)
        other = SSL.Connection(_partner(role, svid), None)
    except SSL.Error as error:
        raise CannotShakeHands(words_of(error)) from None
    rehearsed = _Rehearsal(Judge(wall_clock), Purpose.ANY, requires_pq=role.requires_pq)
    verify.begin(connection, rehearsed)
    server, client = (connection, other) if role.serves else (other, connection)
    server.set_accept_state()
    client.set_connect_state()
    left = [client, server]
    for _ in range(_TURNS):
        for one in tuple(left):
            try:
                one.do_handshake()
                left.remove(one)
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                found = [problem.detail for problem in rehearsed.problems]
                raise CannotShakeHands(found[0] if found else words_of(error)) from None
        _carry(client, server)
        _carry(server, client)
        if not left:
            if role.requires_pq and rehearsed.is_classical(connection):
                raise CannotShakeHands(rehearsed.problems[0].detail)
            return
    raise CannotShakeHands("it does not come to an end")


def _partner(role: Role, svid: X509Svid) -> SSL.Context:
    """The other end, of the same identity; it takes whatever it is shown."""
    partner = SSL.Context(SSL.TLS_CLIENT_METHOD if role.serves else SSL.TLS_SERVER_METHOD)
    partner.set_min_proto_version(SSL.TLS1_3_VERSION)
    partner.set_max_proto_version(SSL.TLS1_3_VERSION)
    partner.set_verify(SSL.VERIFY_NONE)
    if role.requires_pq:
        groups.insist(partner)
    partner.use_certificate(svid.leaf)
    use_key(partner, svid.key)
    return partner


def _carry(one: SSL.Connection, other: SSL.Connection) -> None:
    with suppress(SSL.WantReadError):
        other.bio_write(one.bio_read(_RECORD))


def words_of(error: SSL.Error) -> str:
    """What OpenSSL says, without its function names."""
    queue = error.args[0] if error.args else ()
    said = [entry[2] for entry in queue if isinstance(entry, tuple) and len(entry) == 3]
    return ", ".join(map(str, said)) or "an unexplained TLS error"
