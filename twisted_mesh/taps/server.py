"""``twistd mesh-server``: a service that proves who it is and serves who proves the same."""

import ipaddress
from collections.abc import Sequence
from socket import gethostname
from typing import ClassVar, cast

import msgspec
from prometheus_client import generate_latest
from twisted.application.service import IService
from twisted.web import resource, server

from pki.codes import Code
from pki.errors import Malformed, printable
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.names import is_dns_name
from pki.validity import parse_lifetime, spoken_duration, spoken_time
from twisted_mesh import observe
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.request import BoundedRequest, answer
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.identity.bootstrap import ca_client, join_token, saved_svid
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.sources import CaSource
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.revocation.crl_numbers import crl_numbers_path
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.revocation.stapler import Stapler
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.descriptors import Descriptors
from twisted_mesh.server import site
from twisted_mesh.taps.ca_options import key_algorithm, max_connections
from twisted_mesh.taps.lifecycle import (
    MeshService,
    ServiceOptions,
    early_endpoint,
    listening_endpoint,
    service_of,
)
from twisted_mesh.tls import endpoints
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import freshness
from twisted_mesh.trust.judge import Judge, Trust
from twisted_mesh.trust.log_witness import LogWitness, witness_path
from twisted_mesh.trust.store import TrustStore

#: Connections for those who look whether it is well.
_MOST_AT_STATUS = 64


class Options(ServiceOptions):
    """Options of ``twistd mesh-server``."""

    program = "mesh-server"
    synopsis = "[options]\n\nExample: twistd -n mesh-server --listen 9443 --allow spiffe://mesh.local/service/payment-worker"
    longdesc = "An mTLS service: it gets its certificate from the CA, renews it, and serves proven callers only."
    optParameters: ClassVar = [
        [
            "ca-url",
            None,
            None,
            "unix:PATH, http://localhost:PORT or https://HOST:PORT (default: the state's socket)",
        ],
        ["ca-file", None, None, "the root certificate of a CA asked over https"],
        ["ca-fingerprint", None, None, "in its place the root's fingerprint, sha256:HEX"],
        [
            "ca-user",
            None,
            None,
            "whose the CA at the socket is, if not root's, ours, or its directory's owner",
        ],
        [
            "join-token",
            None,
            None,
            "what mesh-ctl token create printed: buys the first certificate",
        ],
        ["join-token-file", None, None, "the same from a file of one line"],
        ["trust-domain", None, "mesh.local", "our trust domain"],
        ["spiffe-id", None, None, "who we are (default spiffe://TD/service/api-server)"],
        ["key", None, "ec-p256", "the kind of our keys"],
        ["ttl", None, None, "how long our certificates live (default: what the CA gives)"],
        ["listen", None, "9443", "9443, host:9443, or a Twisted endpoint string"],
        ["rotate-at", None, "0.5", "the share of a certificate's life after which it is renewed"],
        [
            "revocation-max-age",
            None,
            None,
            "how old what is known of revocations may be (default: as old as our own certificate gets)",
        ],
        ["on-stale", None, "fail-closed", "then refuse everybody (fail-closed), or go on (grace)"],
        [
            "ocsp",
            None,
            None,
            "ask this http: URL about each new peer; aia: whom its certificate names",
        ],
        ["max-connections", None, None, "open connections (default: what the system allows)"],
        [
            "status",
            None,
            None,
            "serve health and metrics here, in plaintext, on loopback by default",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["dns"], self["ip"], self["allow"] = [], [], []
        self["crl"], self["crl-issuer"], self["ocsp-origin"] = [], [], []

    def opt_dns(self, name: str) -> None:
        """a DNS name that our certificate carries (repeatable; default localhost)"""
        if not is_dns_name(name):
            raise Malformed(f"--dns {printable(name, 80)!r} is no host name in lower case")
        self["dns"].append(name)

    def opt_ip(self, address: str) -> None:
        """an IP address that our certificate carries (repeatable; default 127.0.0.1)"""
        try:
            self["ip"].append(ipaddress.ip_address(address))
        except ValueError:
            raise Malformed(f"--ip {printable(address, 80)!r} is no IP address") from None

    def opt_allow(self, pattern: str) -> None:
        """who may connect: a SPIFFE ID, * for one segment, ** for any rest (repeatable)"""
        self["allow"].append(SpiffePattern.parse(pattern))

    def opt_crl(self, place: str) -> None:
        """a CRL to heed, besides what the CA says: a file, or an http: or file: URL (repeatable)"""
        self["crl"].append(place)

    def opt_crl_issuer(self, file: str) -> None:
        """the certificate of a CA whose CRL may come, besides our own CAs' (repeatable)"""
        self["crl-issuer"].append(file)

    def opt_ocsp_origin(self, origin: str) -> None:
        """http://HOST:PORT that a certificate may name for --ocsp aia (repeatable)"""
        self["ocsp-origin"].append(origin)

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        self["join-token"] = join_token(self["join-token"], self["join-token-file"])
        trust_domain = self["trust-domain"] = TrustDomain.parse(self["trust-domain"])
        self["spiffe-id"] = (
            SpiffeId.parse(self["spiffe-id"])
            if self["spiffe-id"]
            else trust_domain.member("service", "api-server")
        )
        if self["spiffe-id"].trust_domain != trust_domain:
            raise Malformed(
                f"--spiffe-id {self['spiffe-id']} is not of --trust-domain {trust_domain}"
            )
        if not self["dns"] and not self["ip"]:
            self["dns"], self["ip"] = ["localhost"], [ipaddress.ip_address("127.0.0.1")]
        self["key"] = key_algorithm(self["key"], "key")
        self["ttl"] = parse_lifetime(self["ttl"]) if self["ttl"] else None
        self["max-connections"] = max_connections(self["max-connections"])
        self["rotate-at"] = rotation_share(self["rotate-at"])
        self["freshness"] = freshness(self["revocation-max-age"], self["on-stale"])
        self["revocation-sources"] = RevocationOptions.parse(
            self["crl"],
            self["crl-issuer"],
            self["ocsp"],
            self["ocsp-origin"],
            self.get("on-stale"),
        )


def rotation_share(text: str) -> float:
    """``--rotate-at``. Raises :class:`Malformed`."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.1 <= share <= 0.9:
        raise Malformed("--rotate-at is a share of the lifetime from 0.1 to 0.9, like 0.5")
    return share


_ANY = ("0.0.0.0", "::")  # noqa: S104 - a word for the log, not an address to bind


class ServerService(MeshService):
    """The server: its identity, its port, its status."""

    def understand(self) -> None:
        """The endpoints, and the CA that is asked. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        self.endpoint = early_endpoint(reactor, options["listen"])
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(reactor, options["status"], "127.0.0.1")
        self.client = ca_client(
            reactor,
            options["ca-url"],
            options["ca-file"],
            options["state-dir"],
            options["trust-domain"],
            ca_fingerprint=options["ca-fingerprint"],
            ca_user=options["ca-user"],
        )

    async def start(self) -> None:
        """Build what gets and shows an identity, and bind the ports. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        allow = tuple(options["allow"])
        if not allow:
            allow = (SpiffePattern.parse(f"{options['trust-domain'].id}/**"),)
            self.log.warn(
                "No --allow was given: every service of {trust_domain} may connect",
                event="allow-all",
                trust_domain=str(options["trust-domain"]),
            )
        judge = Judge(wall_clock, Trust(allow=allow), options["freshness"])
        staples = Staples(wall_clock)
        contexts = ContextFactory(Role(serves=True), staples)
        self.witness = LogWitness(
            witness_path(options["state-dir"], f"{self.client.address} {options['spiffe-id']}")
        )
        self.witness.recall()
        source = CaSource(
            self.client,
            options["spiffe-id"],
            wall_clock,
            self.log,
            options["dns"],
            options["ip"],
            options["ttl"],
            self.witness,
            options.pop("join-token"),
            saved_svid(self.client, options["state-dir"], options["spiffe-id"]),
        )
        source.recall()
        self.stapler = Stapler(self.client.ocsp, staples, reactor, wall_clock, self.log)
        self.trust_store = TrustStore(
            judge, ConnectionRegistry(), reactor, wall_clock, self.log, [self.stapler]
        )
        sources: RevocationOptions = options["revocation-sources"]
        numbers = crl_numbers_path(
            options["state-dir"], f"{self.client.address} {options['spiffe-id']}"
        )
        self.crls = sources.watch(self.trust_store, reactor, self.log, numbers)
        self.feed = Feed(
            source, self.trust_store.update, judge.freshness, reactor, wall_clock, self.log
        )
        self.manager = CertificateManager(
            source,
            self.trust_store,
            [contexts],
            reactor,
            wall_clock,
            self.log,
            options["key"],
            options["rotate-at"],
            self.feed,
            [self.stapler.prepare, self.crls.prepare],
        )
        observe.watch(self.manager)
        self.site = site(reactor)
        security = Security(
            contexts,
            judge,
            reactor,
            self.trust_store.registry,
            self.log,
            connection_limit=ConnectionLimit(
                Capacity.of_server(options["max-connections"]), reactor, "the port", self.log
            ),
            handshake_budget=HandshakeBudget(reactor),
            peer_check=sources.checker(self.trust_store, reactor, self.log),
        )
        self.port = self.listening(
            endpoints.listen(self.endpoint, self.site, security), f"the address {options['listen']}"
        )
        if self.status_endpoint is not None:
            health = BoundedSite(
                HealthResource(self.manager, self.descriptors, options["dns"]),
                reactor,
                connection_limit=ConnectionLimit(
                    Capacity.of(_MOST_AT_STATUS), reactor, "the status port", self.log
                ),
            )
            self.listening(
                self.status_endpoint.listen(health), f"the status address {options['status']}"
            )

    async def run(self) -> None:
        """Get an identity, however long that takes, and then say where the server listens."""
        for service in (self.trust_store, self.feed, self.manager):
            self.addService(service)
        svid = await self.manager.ready()
        self.open()
        self.addService(
            ConnectionReporter(self.client, self.trust_store.registry, self.reactor, self.log)
        )
        address = self.port.getHost()
        host = getattr(address, "host", "")
        self.log.info(
            "Starting mTLS server on {host}:{port}\nClient certificate required: YES\nTrusted CA: {roots}",
            event="listening",
            host=host if host not in _ANY else "",
            port=getattr(address, "port", address),
            roots=", ".join(
                root.subject.rfc4514_string() for root in self.trust_store.trust.bundles.all_roots
            ),
        )
        rotation = self.manager.next_rotation or svid.validity.not_after
        self.log.info(
            "Certificate rotation scheduled:\n  Next rotation: {next_rotation} (in {wait})\n"
            "Ready to accept mTLS connections.",
            event="ready",
            next_rotation=spoken_time(rotation),
            wait=spoken_duration(rotation - wall_clock()),
        )

    async def close(self) -> None:
        """Ask no more, and keep what the next start is to remember."""
        self.stapler.stop()
        self.crls.stop()
        self.witness.remember()

    async def drain(self, seconds: float) -> None:
        """Let requests finish within so many seconds."""
        late = await self.site.drain(seconds)
        if late:
            self.cut_off(late, seconds)


class HealthResource(resource.Resource):
    """``/livez``, ``/readyz``, ``/metrics`` of an endpoint."""

    isLeaf = True

    def __init__(
        self, manager: CertificateManager, descriptors: Descriptors, names: Sequence[str] = ()
    ) -> None:
        """``names`` are host names of ours, by which it may be asked for."""
        super().__init__()
        self._names = {"localhost", gethostname().lower(), *names}
        self._manager = manager
        self._descriptors = descriptors

    def render(self, request: BoundedRequest) -> int:
        """Answer at once: nothing is looked up for it."""
        if not self._is_meant(request):
            detail = "this is asked for by an address, localhost, or a name of --dns, and not by that Host"
            answer(
                request,
                421,
                problem_body(421, Code.CROSS_ORIGIN, detail),
                "application/problem+json",
            )
        elif request.path == b"/livez":
            answer(request, 200, b'{"status":"alive"}')
        elif request.path == b"/readyz":
            status, body = self._readiness()
            answer(request, status, msgspec.json.encode(body))
        elif request.path == b"/metrics":
            answer(request, 200, generate_latest(), "text/plain; version=0.0.4")
        else:
            answer(request, 404, b'{"status":"not-found"}')
        return server.NOT_DONE_YET

    def _is_meant(self, request: BoundedRequest) -> bool:
        """Whether it was sent to us by a name of ours.

        A web page can have its own name lead here, and read what is answered to that; never an address.
        """
        hosts = request.requestHeaders.getRawHeaders(b"host") or ()
        return all(self._is_ours(host.decode("ascii", "replace").lower()) for host in hosts)

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not (colon and port.isdigit()):
            name = host
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def _readiness(self) -> tuple[int, dict[str, object]]:
        left, known = self._manager.seconds_left, self._manager.trust_store.freshness
        told: dict[str, object] = {"status": "ready", "seconds_to_expiry": int(left)}
        told["revocation_age_seconds"] = None if known.age is None else round(known.age, 1)
        lack = self._descriptors.problem
        if left > 0 and not known.refuses and lack is None:
            return 200, told
        code = Code.NO_IDENTITY
        if lack is not None:
            code, told["detail"] = lack.code, lack.detail
        elif left > 0:
            problem = known.problem()
            code, told["detail"] = problem.code, str(problem)
        return 503, {**told, "status": code, "code": code}


def makeService(options: Options) -> IService:
    """What ``twistd mesh-server`` starts."""
    return cast(IService, service_of(ServerService, options))
