"""TLS contexts: TLS 1.3, no resumption, both sides verified; built anew for each certificate."""

from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from zope.interface import implementer

from pki.svid.x509svid import X509Svid
from twisted_mesh.interfaces import IContextFactory
from twisted_mesh.tls import groups, stapling, verify
from twisted_mesh.tls.private_key import use_key
from twisted_mesh.tls.stapling import Staples

_HTTP11 = b"http/1.1"
#: SSL_MODE_NO_AUTO_CHAIN: send what we say and not what the trust store holds, so no root by accident.
_NO_AUTO_CHAIN = 0x08


@frozen
class Role:
    """Which end of a connection a context is for."""

    serves: bool
    demands_certificate: bool = True
    """A server may ask for a certificate and take none; it then knows that it has none."""
    sends_root: bool = False
    """For the CA: a caller that has only the root's fingerprint needs to see the root."""
    exact_alerts: bool = True
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone: see :mod:`twisted_mesh.tls.groups`."""


def build_context(
    svid: X509Svid | None,
    roots: Sequence[x509.Certificate],
    role: Role,
    staples: Staples | None = None,
) -> SSL.Context:
    """A context that presents ``svid``, with what is in ``staples`` for it, and lets OpenSSL believe ``roots``.

    OpenSSL's store is the union of all trust domains, so its verdict is only a second veto:
    :mod:`twisted_mesh.tls.verify` gives the first. Raises :class:`~twisted_mesh.tls.groups.NoHybridGroup` where
    ``role`` requires one, and OpenSSL has none.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD if role.serves else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # Said too, or a machine's openssl.cnf may say something lower.
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    if role.requires_pq:
        groups.insist(context)
    context.set_mode(_NO_AUTO_CHAIN | SSL.MODE_RELEASE_BUFFERS)
    # A resumed session skips the callback, and only the two together prevent it.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    store = context.get_cert_store()
    if store is not None:
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root))
    if svid is not None:
        context.use_certificate(svid.leaf)
        for certificate in svid.intermediates:
            context.add_extra_chain_cert(certificate)
        if role.sends_root:
            for root in roots:
                if root.subject == svid.chain[-1].issuer:
                    context.add_extra_chain_cert(root)
        use_key(context, svid.key)
        context.check_privatekey()
    if role.serves:
        # Without an id a client that offers a session is dropped instead of shaking hands in full.
        context.set_session_id(b"twisted-mesh")
        context.set_alpn_select_callback(
            lambda _, offered: _HTTP11 if _HTTP11 in offered else SSL.NO_OVERLAPPING_PROTOCOLS
        )
        if staples is not None and svid is not None:
            stapling.offer(context, staples, svid.leaf)
    else:
        context.set_alpn_protos([_HTTP11])
        stapling.expect(context)
    verify.install(context, demanded=role.demands_certificate, exact_alerts=role.exact_alerts)
    return context


@implementer(IContextFactory)
@define(eq=False)
class ContextFactory:
    """Hands out the context of the moment. Rotation builds a new one and swaps the reference."""

    role: Role
    staples: Staples | None = None
    """What a server staples to its certificates."""
    besides: Callable[[], Sequence[x509.Certificate]] = tuple
    """Roots that OpenSSL is to believe too, of which our own verdict has its own opinion."""
    shown: X509Svid | None = field(default=None, init=False)
    """What the context of the moment presents."""
    origin: str = field(default="", init=False)
    """Where that comes from, for people: an option and its directory."""
    _context: SSL.Context | None = field(default=None, init=False)
    _generation: int = field(default=0, init=False)

    def build(self, svid: X509Svid | None, roots: Sequence[x509.Certificate]) -> SSL.Context:
        """A context for these, not in use yet. Raises ``SSL.Error`` where they do not fit."""
        others = [root for root in self.besides() if root not in roots]
        return build_context(svid, [*roots, *others], self.role, self.staples)

    def use(self, context: SSL.Context, svid: X509Svid | None) -> None:
        """Use it, which presents ``svid``, from the next connection on."""
        self._context, self.shown = context, svid
        self._generation += 1

    def replace(self, svid: X509Svid | None, roots: Sequence[x509.Certificate]) -> None:
        """:meth:`build` and :meth:`use`. If it cannot be built, the old one stays."""
        self.use(self.build(svid, roots), svid)

    def withdraw(self) -> None:
        """Have no identity: new connections are refused until the next :meth:`replace`."""
        self._context = None

    def current(self) -> tuple[SSL.Context, int] | None:
        """See :class:`IContextFactory`."""
        return None if self._context is None else (self._context, self._generation)
