"""Refusals between a client and a server: what the certificates, the clocks and the rules are to blame for."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, evolve
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from zope.interface import implementer

from pki.keys import key_id
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from pki.validity import compared
from tests import running
from tests.authorities import DAY, HOUR, MESH, OTHER, Mesh, forge, forge_issuing, key, mesh
from tests.first_lines.row import FirstLine
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.tls.wires import (
    TODAY,
    Conversation,
    End,
    converse,
    good_svid,
    home,
    svid_of,
)
from twisted_mesh.http.json import read_problem
from twisted_mesh.http.refusal import HttpRefusal
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.interfaces import Identity
from twisted_mesh.testing import names
from twisted_mesh.tls.alerts import as_error, with_clocks
from twisted_mesh.tls.endpoints import MeshClientEndpoint
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TrustStore

PAYMENT = "spiffe://mesh.local/service/payment-worker"
BACKEND = "spiffe://mesh.local/service/backend"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
SHA256 = r"sha256:[0-9a-f]{64}"
ISSUER = "CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local"
#: What a client can read in its own chain it reads there, and never guesses at.
GUESSES = "its log has the reason|it is not an SVID, not yet valid"


def of_server(conversation: Conversation) -> str:
    """What the server logs of the peer that it refuses."""
    (event,) = [e for e in conversation.server.log.events if e.get("event") == "peer-refused"]
    return str(event["reasons"])


def of_client(conversation: Conversation) -> str:
    """What the client's command says on stderr."""
    return str(as_error(conversation.client_error))


@implementer(IStreamClientEndpoint)
class Nowhere:
    """An endpoint that nobody is to connect to."""

    def connect(self, factory: object) -> "Deferred[IProtocol]":
        raise AssertionError("it has shown its certificate")


Telling = Callable[[Conversation], str]


def said(
    tell: Telling,
    client: Callable[[], End] = lambda: End(False),
    server: Callable[[], End] = lambda: End(True),
) -> Callable[[Path], str]:
    return lambda directory: tell(converse(client(), server()))


def beforehand(make: Callable[[], End]) -> Callable[[Path], str]:
    """What a client says that looks at its own chain before it connects to anybody."""

    def told(directory: Path) -> str:
        security = evolve(make().security, looks_first=True)
        said: list[Any] = []
        connecting = MeshClientEndpoint(Nowhere(), security, "localhost").connect(Factory())
        connecting.addErrback(said.append)
        return str(as_error(said[0]))

    return told


def forged(
    start: datetime = TODAY - HOUR,
    end: datetime = TODAY + HOUR,
    above: Sequence[x509.Certificate] | None = None,
    replace: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] | None = None,
) -> X509Svid:
    leaf = forge(home().issuing, start=start, end=end, replace=replace)
    return svid_of(leaf, home().issuing.intermediates if above is None else above)


def expired() -> X509Svid:
    return forged(end=TODAY - HOUR, start=TODAY - 2 * HOUR)


def early() -> X509Svid:
    return forged(start=TODAY + HOUR, end=TODAY + 2 * HOUR)


def alone() -> X509Svid:
    return forged(above=())


def for_servers_only() -> X509Svid:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return forged(replace={x509.ExtendedKeyUsage: (usage, False)})


def two_names() -> X509Svid:
    both = names(BACKEND, PAYMENT)
    return forged(replace={x509.SubjectAlternativeName: (both, False)})


def showing(make: Callable[[], X509Svid]) -> Callable[[], End]:
    return lambda: End(False, make())


def serving(make: Callable[[], X509Svid]) -> Callable[[], End]:
    return lambda: End(True, make())


def namesake() -> Mesh:
    """Another mesh of the same names, as whoever founds one anew has it."""
    return mesh(MESH, key("another root"), key("another issuing CA"), TODAY - HOUR)


def revoking(end: End, serial: int, issuer: x509.Certificate) -> End:
    revocation = Revocation(
        key_id(issuer.public_key()), serial, TODAY - HOUR, Reason.KEY_COMPROMISE, TODAY + DAY
    )
    trust = end.judge.trust
    end.judge.trust = evolve(trust, revocations=trust.revocations.merged([revocation], TODAY))
    return end


def knowing_its_own() -> End:
    """A client whose own feed has told it that it is revoked."""
    end = End(False)
    assert end.svid is not None
    return revoking(end, end.svid.leaf.serial_number, home().issuing.certificate)


def revoked_on(side: str, *, issuer: bool = False) -> Callable[[Path], str]:
    """The server knows that the client, or the CA above it, is revoked; what a side says."""

    def told(directory: Path) -> str:
        svid, server = good_svid(), End(True)
        if issuer:
            revoking(server, home().issuing.certificate.serial_number, home().root.certificate)
        else:
            revoking(server, svid.leaf.serial_number, home().issuing.certificate)
        conversation = converse(End(False, svid), server)
        return of_server(conversation) if side == "server" else of_client(conversation)

    return told


def ended_issuer() -> Mesh:
    issuing = forge_issuing(
        home().root, "an ended issuing CA", start=TODAY - 2 * DAY, end=TODAY - HOUR
    )
    return Mesh(MESH, home().root, issuing)


def below_an_ended_issuer() -> X509Svid:
    ended = ended_issuer().issuing
    return svid_of(forge(ended, start=TODAY - HOUR, end=TODAY + HOUR), ended.intermediates)


def not_allowed(tell: Telling) -> Callable[[Path], str]:
    return said(tell, server=lambda: End(True, allow=PAYMENT))


def told_inside(directory: Path) -> str:
    """What a client reads that is good and not allowed."""
    conversation = converse(End(False), End(True, allow=PAYMENT, explain=HttpRefusal))
    conversation.calling.made[0].transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    conversation.pump()
    problem = read_problem(conversation.calling.made[0].heard.partition(b"\r\n\r\n")[2])
    return str(problem)


def at_another_time(offset: timedelta) -> Callable[[], End]:
    """A server whose clock is another one."""
    return lambda: End(True, time=TODAY + offset)


def stale() -> End:
    end = End(True)
    end.judge.freshness = Freshness()
    end.judge.freshness.lapse()
    return end


def expired_there_and_the_ca_agrees(directory: Path) -> str:
    error = as_error(converse(End(False), End(True, expired())).client_error)
    return str(with_clocks(error, compared(TODAY, TODAY, "the CA's clock")))


@define
class Issued:
    """A source that has one identity to give."""

    identity: Identity
    where: str = "https://ca.test:8443"

    async def obtain(self, algorithm: object) -> Identity:
        return self.identity


def renewing_by_a_slow_clock(directory: Path) -> str:
    """What a service logs whose clock is behind that of the CA, which has told its own with the certificate."""
    there = TODAY + HOUR
    svid = good_svid(mesh(MESH, now=TODAY - HOUR))
    fresh = forge(home().issuing, start=there, end=there + HOUR)
    early = X509Svid(fresh, svid.intermediates, key(9), svid.spiffe_id)
    identity = Identity(early, home().bundles, TODAY, compared(there, TODAY, "the CA's clock"))
    clock, log = Clock(), RecordingLog()
    store = TrustStore(Judge(lambda: TODAY), ConnectionRegistry(), clock, lambda: TODAY, log)
    source: Any = Issued(identity)
    manager = CertificateManager(source, store, [], clock, lambda: TODAY, log)
    manager.startService()
    manager.stopService()
    return str(manager.last_problem)


def told_by_the_programs(directory: Path) -> str:
    """The same of whole programs, over sockets."""
    with running.mesh(directory) as house:
        house.start_ca()
        house.start_server("--allow", PAYMENT)
        done = house.client("--spiffe-id", BACKEND)
        assert done.returncode == 1
        return done.stderr.removeprefix("mesh-client: ")


FRESH = "request a fresh one; if this one is fresh, compare the two machines' clocks"
CLOCKS = "compare the two machines' clocks"
ANEW = "present an SVID of this mesh: curl takes --cert and --key"
BOTH_DATES = rf"expired at {TIME}, 1h 0m ago; here it is {TIME}"
BOTH_STARTS = rf"valid from {TIME}, in 1h 0m; here it is {TIME}"
OURS = r"our own certificate, that of \S+, would be refused: "
REFUSED_US = r"the other side refused us: our certificate, that of \S+, is no good: "

ROWS = (
    FirstLine(
        "the CA's clock is an hour ahead of a service's",
        "service",
        rf"not-yet-valid: the certificate is {BOTH_STARTS}; the CA's clock is 1h 0m ahead of ours: it says {TIME}",
        CLOCKS,
        renewing_by_a_slow_clock,
    ),
    FirstLine(
        "the server's certificate has expired, and the CA's clock is known",
        "client",
        f"expired: the certificate {BOTH_DATES}; the CA's clock agrees with ours",
        CLOCKS,
        expired_there_and_the_ca_agrees,
    ),
    FirstLine(
        "the caller has no certificate",
        "server",
        "no-certificate: the peer presented no certificate",
        ANEW,
        said(of_server, lambda: End(False, None)),
    ),
    FirstLine(
        "the caller has no certificate",
        "client",
        "it demands a client certificate, and we sent none",
        "present an SVID",
        said(of_client, lambda: End(False, None)),
    ),
    FirstLine(
        "the caller's certificate has expired",
        "server",
        f"expired: the certificate {BOTH_DATES}",
        CLOCKS,
        said(of_server, showing(expired)),
    ),
    FirstLine(
        "the caller's certificate has expired, before it shows it",
        "client",
        f"{OURS}the certificate {BOTH_DATES}",
        FRESH,
        beforehand(showing(expired)),
    ),
    FirstLine(
        "the caller's certificate has expired, at the alert",
        "client",
        f"{REFUSED_US}the certificate {BOTH_DATES}",
        FRESH,
        said(of_client, showing(expired)),
    ),
    FirstLine(
        "the caller's certificate begins in an hour",
        "server",
        f"not-yet-valid: the certificate is {BOTH_STARTS}",
        CLOCKS,
        said(of_server, showing(early)),
    ),
    FirstLine(
        "the caller's certificate begins in an hour, before it shows it",
        "client",
        f"{OURS}the certificate is {BOTH_STARTS}",
        CLOCKS,
        beforehand(showing(early)),
        never=GUESSES,
    ),
    FirstLine(
        "the caller's certificate begins in an hour, at the alert",
        "client",
        f"{REFUSED_US}the certificate is {BOTH_STARTS}",
        CLOCKS,
        said(of_client, showing(early)),
        never=GUESSES,
    ),
    FirstLine(
        "the clock of the server is two hours ahead",
        "client",
        rf"it says that our certificate has expired; it is valid until {TIME}, and here it is {TIME}: .*its clock is "
        r"\S+ \S+ or more ahead of ours",
        CLOCKS,
        said(of_client, server=at_another_time(2 * HOUR)),
    ),
    FirstLine(
        "the clock of the server is two hours behind",
        "client",
        rf"in which we find no fault: it is not allowed there, or a clock there is .+ or more behind ours "
        rf"\(it is valid from {TIME}, and here it is {TIME}\)",
        f"its log has the reason: have it allow {BACKEND}, or compare the two machines' clocks",
        said(of_client, server=at_another_time(-2 * HOUR)),
    ),
    FirstLine(
        "the caller is not allowed, at a port that does not speak HTTP",
        "client",
        "it refuses our certificate, in which we find no fault: it is not allowed there, or a clock there is",
        f"its log has the reason: have it allow {BACKEND}",
        not_allowed(of_client),
        never=f"{PAYMENT}|it is not an SVID",
    ),
    FirstLine(
        "the caller leaves out its issuing CA",
        "server",
        f"incomplete-chain: the peer did not present its issuer {ISSUER}",
        "send the intermediates along: curl takes them in the --cert file",
        said(of_server, showing(alone)),
    ),
    FirstLine(
        "the caller leaves out its issuing CA, before it shows it",
        "client",
        f"{OURS}the certificate of its issuer {ISSUER} is missing from the chain",
        "put the issuing CA's certificate behind the leaf",
        beforehand(showing(alone)),
    ),
    FirstLine(
        "the caller leaves out its issuing CA, at the alert",
        "client",
        f"{REFUSED_US}the certificate of its issuer {ISSUER} is missing from the chain",
        "put the issuing CA's certificate behind the leaf",
        said(of_client, showing(alone)),
    ),
    FirstLine(
        "the caller is revoked",
        "server",
        rf"revoked: serial \S+ was revoked at {TIME} \(keyCompromise\)",
        "request a new certificate, if you still may",
        revoked_on("server"),
    ),
    FirstLine(
        "the caller is revoked, and has not heard of it",
        "client",
        r"it says that our certificate is revoked; serial \S+, which we have not heard of",
        "ask an administrator why",
        revoked_on("client"),
    ),
    FirstLine(
        "the caller is revoked, and knows it from its feed",
        "client",
        rf"{OURS}serial \S+ was revoked at {TIME} \(keyCompromise\)",
        "ask an administrator why; if it was in error, request a new one",
        beforehand(knowing_its_own),
    ),
    FirstLine(
        "the caller's issuing CA is revoked",
        "server",
        rf"revoked: its issuer {ISSUER}, serial \S+, was revoked at {TIME}",
        "request a new certificate, which another issuer signs",
        revoked_on("server", issuer=True),
    ),
    FirstLine(
        "the caller's issuing CA has expired",
        "server",
        f"expired: the certificate of its issuer CN=.* {BOTH_DATES}",
        CLOCKS,
        said(of_server, showing(below_an_ended_issuer)),
    ),
    FirstLine(
        "the server's issuing CA has expired",
        "client",
        f"expired: the certificate of its issuer CN=.* {BOTH_DATES}",
        CLOCKS,
        said(of_client, server=serving(below_an_ended_issuer)),
    ),
    FirstLine(
        "the caller's certificate is for servers only",
        "server",
        "wrong-usage: extended key usage does not allow clientAuth",
        "request an SVID from the mesh's CA",
        said(of_server, showing(for_servers_only)),
    ),
    FirstLine(
        "the caller's certificate is for servers only",
        "client",
        f"{REFUSED_US}extended key usage does not allow clientAuth",
        "request an SVID from the mesh's CA",
        said(of_client, showing(for_servers_only)),
    ),
    FirstLine(
        "the caller's certificate has two IDs",
        "client",
        f"{REFUSED_US}an SVID has exactly one URI name, this one 2",
        "request an SVID from the mesh's CA",
        said(of_client, showing(two_names)),
        never=GUESSES,
    ),
    FirstLine(
        "the caller is of a mesh of the same names",
        "server",
        rf"unknown-authority: .*of the name CN=mtls-mesh-root-ca.* and another key than the one held here, which is "
        rf"{SHA256}; it names the key [0-9a-f]{{40}}",
        "compare the fingerprints with what each CA prints at its start",
        said(of_server, showing(lambda: good_svid(namesake()))),
    ),
    FirstLine(
        "the caller is of a mesh of the same names",
        "client",
        rf"it does not know the authority that signed our certificate; our chain leads to CN=mtls-mesh-root-ca.* "
        rf"\({SHA256}\)",
        "compare that with the roots that it holds",
        said(of_client, server=lambda: End(True, believes=namesake())),
    ),
    FirstLine(
        "the certificate is of another mesh than the roots that we hold",
        "client",
        rf"{REFUSED_US}the certificate is signed by an unknown authority, of the name CN=mtls-mesh-root-ca.* and "
        rf"another key than the one held here, which is {SHA256}; it names the key [0-9a-f]{{40}}",
        "use certificates and roots of one mesh",
        said(of_client, showing(lambda: good_svid(namesake()))),
    ),
    FirstLine(
        "the CA of another trust domain answers",
        "client",
        r"unknown-trust-domain: no bundle is held for other\.example \(held: mesh\.local\)",
        "that is the CA of other.example: check --ca-url, and our trust domain",
        said(
            of_client,
            lambda: End(False, allow="spiffe://mesh.local/mesh/ca"),
            serving(lambda: good_svid(home(OTHER), "mesh", "ca")),
        ),
        never="--server-id",
    ),
    FirstLine(
        "the server is of a mesh of the same names",
        "client",
        rf"unknown-authority: .*and another key than the one held here, which is {SHA256}",
        "compare the fingerprints with what each CA prints at its start",
        said(of_client, server=lambda: End(True, good_svid(namesake()), namesake())),
    ),
    FirstLine(
        "the caller is of another trust domain",
        "server",
        r"unknown-trust-domain: no bundle is held for other\.example \(held: mesh\.local\)",
        "present an SVID of a trust domain that is held here, or federate with it",
        said(of_server, lambda: End(False, good_svid(home(OTHER)))),
    ),
    FirstLine(
        "the caller is not allowed",
        "server",
        f"not-authorized: {BACKEND} is not among those that may: {PAYMENT}",
        f"to let it in, add --allow {BACKEND} here; else have it call as one of these",
        not_allowed(of_server),
    ),
    FirstLine(
        "the caller is not allowed",
        "client",
        f"not-authorized: {BACKEND} has proven who it is, and is not among those that may connect",
        f"add --allow {BACKEND} where the server is started, or call as a service that may",
        told_inside,
        never=PAYMENT,
    ),
    FirstLine(
        "the caller is not allowed, and both are programs",
        "client",
        f"^https://localhost:\\d+ refused us: {BACKEND} has proven who it is, and is not among those that may connect",
        f"add --allow {BACKEND} where the server is started, or call as a service that may",
        told_by_the_programs,
        starts_processes=True,
        never=PAYMENT,
    ),
    FirstLine(
        "another service answers than was asked for",
        "client",
        f"not-authorized: {BACKEND} is not among those that may: {PAYMENT}",
        f"to accept it, call with --server-id {BACKEND}; else check --server",
        said(of_client, lambda: End(False, allow=PAYMENT)),
    ),
    FirstLine(
        "a service answers in the CA's place",
        "client",
        f"not-authorized: {BACKEND} is not among those that may: spiffe://mesh.local/mesh/ca",
        "that is a service and not the CA: check the port in --ca-url",
        said(of_client, lambda: End(False, allow="spiffe://mesh.local/mesh/ca")),
    ),
    FirstLine(
        "the server's certificate has expired",
        "client",
        f"expired: the certificate {BOTH_DATES}",
        CLOCKS,
        said(of_client, server=serving(expired)),
    ),
    FirstLine(
        "the server's certificate begins in an hour",
        "client",
        f"not-yet-valid: the certificate is {BOTH_STARTS}",
        CLOCKS,
        said(of_client, server=serving(early)),
    ),
    FirstLine(
        "the server leaves out its issuing CA",
        "client",
        f"incomplete-chain: the peer did not present its issuer {ISSUER}",
        "send the intermediates along",
        said(of_client, server=serving(alone)),
    ),
    FirstLine(
        "the server's revocations are too old",
        "server",
        "stale-revocation: what was revoked .* is not known here",
        "restore the connection to the CA",
        said(of_server, server=stale),
    ),
    FirstLine(
        "the server's revocations are too old",
        "client",
        "it cannot make sure of our certificate now: what it knows of revocations may be out of date",
        "try again later; its log has the reason",
        said(of_client, server=stale),
    ),
)
