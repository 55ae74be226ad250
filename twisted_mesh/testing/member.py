"""Somebody in a mesh of memory, and what becomes of a handshake of two."""

import ssl
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, frozen
from OpenSSL import SSL

from pki.errors import Problem
from pki.spiffe import SpiffeId
from pki.svid.x509svid import Purpose, X509Svid
from twisted_mesh.state.generation import publish
from twisted_mesh.tls import verify
from twisted_mesh.tls.contexts import Role, build_context
from twisted_mesh.tls.verify import Handshake
from twisted_mesh.trust.judge import Judge

#: Longer than a TLS record.
_RECORD = 1 << 16
_TURNS = 20


@define(eq=False)
class Member:
    """Somebody in a mesh: what is shown, and by what others are judged."""

    svid: X509Svid
    judge: Judge

    def connection(self, *, serves: bool) -> SSL.Connection:
        """One end of a TLS connection as our endpoints make it, over memory BIOs, judged in its handshake."""
        context = build_context(self.svid, self.judge.trust.bundles.all_roots, Role(serves=serves))
        connection = SSL.Connection(context, None)
        verify.begin(
            connection, Handshake(self.judge, Purpose.CLIENT if serves else Purpose.SERVER)
        )
        connection.set_accept_state() if serves else connection.set_connect_state()
        return connection

    def write(self, directory: Path) -> None:
        """``svid.pem``, ``svid_key.pem`` and ``svid_bundle.pem``, as ``mesh-client --export`` writes them."""
        roots = self.judge.trust.bundles.get(self.svid.spiffe_id.trust_domain)
        publish(
            directory,
            {
                "svid.pem": (self.svid.chain_pem(), 0o644),
                "svid_key.pem": (self.svid.key.to_pem(), 0o600),
                "svid_bundle.pem": (roots.to_pem() if roots else b"", 0o644),
            },
        )

    def ssl_context(self, *, serves: bool) -> ssl.SSLContext:
        """A context of the standard library with the same files: it knows roots only, no ID and no revocation.

        It stands for a program that is not of the mesh, at the other end of what is tested.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        with TemporaryDirectory() as made:
            home = Path(made) / "identity"
            self.write(home)
            files = home / "current" if (home / "current").exists() else home
            context.load_cert_chain(files / "svid.pem", files / "svid_key.pem")
            context.load_verify_locations(files / "svid_bundle.pem")
        return context


@frozen
class Shaken:
    """What became of a handshake."""

    client: SpiffeId | None
    """Whom the server has let in."""
    server: SpiffeId | None
    """Whom the client has reached."""
    server_problems: tuple[Problem, ...]
    """Why the server refused the client; empty where it did not, or was not asked."""
    client_problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether both have let each other in."""
        return self.client is not None and self.server is not None

    @property
    def codes(self) -> list[str]:
        """All that was found, for an assertion: ``["revoked"]``."""
        return [str(problem.code) for problem in (*self.client_problems, *self.server_problems)]


def shake_hands(server: Member, client: Member) -> Shaken:
    """A whole TLS handshake between two members, in memory; refusals are in what is returned."""
    ends = server.connection(serves=True), client.connection(serves=False)
    left = list(ends)
    for _ in range(_TURNS):
        for end in tuple(left):
            try:
                end.do_handshake()
                left.remove(end)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                left.remove(end)
        for one, other in (ends, ends[::-1]):
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(_RECORD))
        if not left:
            break
    at_server, at_client = map(verify.handshake_of, ends)
    return Shaken(
        _accepted(at_server), _accepted(at_client), at_server.problems, at_client.problems
    )


def _accepted(handshake: Handshake) -> SpiffeId | None:
    verdict = handshake.verdict
    return verdict.spiffe_id if verdict is not None and handshake.accepted else None
