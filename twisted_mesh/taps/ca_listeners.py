"""Where a CA is called: its TLS port, its socket, and the plaintext and CRL ports where they are asked for."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger

from pki.svid.federation import Profile
from twisted_mesh.attest.configured import ConfiguredPlatforms
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.ca.api import health
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import (
    Authenticator,
    PlaintextAuthenticator,
    SocketAuthenticator,
    TlsAuthenticator,
    of_process,
)
from twisted_mesh.ca.api.bundle_site import PATH, BundleSite
from twisted_mesh.ca.api.oidc_site import OidcSite
from twisted_mesh.ca.api.public_site import PublicSite
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.ca.holders import Holders
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.refusal import OF_CA, HttpRefusal
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.interfaces import IReactor
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.socket_owner import listener_at
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.taps import own_address
from twisted_mesh.taps.ca_endpoint import CaEndpoint
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.early_port import EarlyReactor, is_answered
from twisted_mesh.taps.federation_options import FederationOptions
from twisted_mesh.taps.listening import early_endpoint
from twisted_mesh.taps.oidc_options import OidcOptions
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.taps.status_port import clear_way, refuse_public, status_site
from twisted_mesh.tls import endpoints
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.web import ShownSvid, WebCertificate, over_web_tls

Listening = Callable[[Deferred[IListeningPort], str], IListeningPort]
"""The port of an endpoint's ``listen``, by what it is called. Raises :class:`StartError`."""


@define(eq=False)
class CaListeners:
    """All of them have one throttle, and each has a bound of its own on its connections."""

    options: Options
    reactor: IReactor
    log: Logger
    listening: Listening
    socket: Path
    tls_endpoint: IStreamServerEndpoint
    plain_endpoint: IStreamServerEndpoint | None
    crl_endpoint: IStreamServerEndpoint | None
    status_endpoint: IStreamServerEndpoint | None
    oidc_endpoint: IStreamServerEndpoint | None = None
    web_certificate: WebCertificate | None = None
    """Of the OIDC address, where that is not a unix socket."""
    federation_endpoint: IStreamServerEndpoint | None = None
    federation_certificate: WebCertificate | None = None
    """Of that address, with ``https_web`` where it is not a unix socket."""
    containers: LocalWorkloads | None = field(default=None, init=False)
    """Who is asked about those of this machine's processes."""
    sites: list[BoundedSite] = field(factory=list, init=False)
    """What is served, by now."""
    platforms: ConfiguredPlatforms | None = field(default=None, init=False)
    """Of which platforms evidence is taken; None before the CA listens."""
    tls_port: IListeningPort | None = field(default=None, init=False)
    """The only one that serves nobody before the CA has a certificate of its own."""

    @classmethod
    def parse(
        cls,
        options: Options,
        default_socket: Path,
        reactor: IReactor,
        log: Logger,
        listening: Listening,
    ) -> "CaListeners":
        """What the options say of them; nothing is bound yet. Raises :class:`StartError`."""
        path = Path(options["socket"]) if options["socket"] else default_socket
        tls_endpoint = early_endpoint(reactor, options["listen"], "127.0.0.1")
        if (objection := too_long(path)) is not None:
            raise StartError(f"the socket's path {objection}: choose a shorter --socket")
        plain, crl, status = (options[n] for n in ("insecure-http", "crl-http", "status"))
        oidc: OidcOptions | None = options["oidc"]
        certificate = None
        if oidc is not None and oidc.certificate is not None and oidc.key is not None:
            certificate = WebCertificate(
                oidc.certificate, oidc.key, requires_pq=bool(options["require-pq"])
            )
        federation: FederationOptions | None = options["federation"]
        shown = None
        if federation is not None and federation.certificate and federation.key:
            shown = WebCertificate(
                federation.certificate,
                federation.key,
                "--federation",
                requires_pq=bool(options["require-pq"]),
            )
        return cls(
            options,
            reactor,
            log,
            listening,
            path,
            tls_endpoint,
            early_endpoint(reactor, f"127.0.0.1:{plain}") if plain is not None else None,
            early_endpoint(reactor, crl, "127.0.0.1") if crl is not None else None,
            early_endpoint(reactor, status, "127.0.0.1") if status is not None else None,
            early_endpoint(reactor, oidc.address) if oidc is not None else None,
            certificate,
            early_endpoint(reactor, federation.address) if federation is not None else None,
            shown,
        )

    @property
    def capacity(self) -> Capacity:
        """How many connections each of them holds."""
        most = self.options["max-connections"]
        if most:
            return Capacity.of(most)
        asked_for = (
            self.plain_endpoint,
            self.crl_endpoint,
            self.oidc_endpoint,
            self.federation_endpoint,
        )
        return Capacity.of_system(2 + sum(endpoint is not None for endpoint in asked_for))

    def open(self, ca: CaParts, own: CaEndpoint, capacity: Capacity) -> IAddress:
        """Bind at once, so that a taken port ends the start; where the TLS port is.

        They are listened on once the CA can serve. Raises :class:`StartError`.
        """
        store = ca.store
        self.containers = self.options.local_workloads(self.reactor)
        means = Means(
            self.reactor,
            store.find_token,
            ca.entries.entry_of,
            ca.now,
            store.find,
            trust_domain=ca.trust_domain,
            containers=self.containers,
            blocked=partial(ca.blocked.problem, subject="certificate"),
            requires_pq=bool(self.options["require-pq"]),
        )
        self.platforms = ConfiguredPlatforms(self.options["attestors"], means)
        ca.health.watch_platforms(self.platforms.standing)
        shared = _Shared(
            ca,
            self.platforms.attestors,
            Throttle(self.reactor, self.options["rate-limit"]),
            capacity,
        )
        address = self._open_tls(shared, own)
        self._open_socket(shared)
        if self.plain_endpoint is not None:
            self._open_plaintext(self.plain_endpoint, shared)
        if self.crl_endpoint is not None:
            self._open_crls(self.crl_endpoint, shared)
        if self.status_endpoint is not None:
            self._open_status(self.status_endpoint, ca)
        if self.oidc_endpoint is not None and ca.jwt is not None:
            self._open_oidc(self.oidc_endpoint, shared, ca.jwt)
        if self.federation_endpoint is not None:
            self._open_federation(self.federation_endpoint, shared, own)
        return address

    async def drain(self, seconds: float) -> int:
        """Let all that is under way finish, side by side; how many requests were cut off."""
        return sum(
            await gatherResults(Deferred.fromCoroutine(site.drain(seconds)) for site in self.sites)
        )

    def _open_tls(self, shared: "_Shared", own: CaEndpoint) -> IAddress:
        api = shared.api(TlsAuthenticator(self.options["admin"], self.options["monitor"]))
        site = self._served(BoundedSite(api, self.reactor))
        security = Security(
            own.contexts,
            own.trust_store.judge,
            self.reactor,
            own.trust_store.registry,
            self.log,
            connection_limit=self._limit(shared, "the TLS port"),
            holder_of=Holders(shared.ca.store).of,
            handshake_budget=HandshakeBudget(self.reactor),
            explain=partial(HttpRefusal, cure=OF_CA),
        )
        self.tls_port = port = self.listening(
            endpoints.listen(self.tls_endpoint, site, security),
            f"the TLS address {self.options['listen']}",
        )
        address: IAddress = port.getHost()
        shared.ca.url.settle(own_address.reached_at(address, self.options["public-url"]))
        return address

    def _open_socket(self, shared: "_Shared") -> None:
        path = self.socket
        if path.is_socket():
            if is_answered(path):
                owner = listener_at(str(path)) or "who it is, root sees with ss -lxp"
                raise StartError(
                    f"the socket {path} is another program's ({owner}): stop that, or choose another --socket"
                )
            path.unlink()  # of a CA that was killed
        api = shared.api(SocketAuthenticator(shared.ca.entries))
        limit = self._limit(shared, "the socket")
        site = BoundedSite(api, self.reactor, connection_limit=limit, caller_key=of_process)
        early: Any = EarlyReactor(self.reactor)
        endpoint = UNIXServerEndpoint(early, str(path), backlog=1024, mode=0o666)
        self.listening(endpoint.listen(self._served(site)), f"the socket {path}")

    def _open_plaintext(self, endpoint: IStreamServerEndpoint, shared: "_Shared") -> None:
        api = shared.api(PlaintextAuthenticator(), guards_browsers=True)
        limit = self._limit(shared, "the plaintext port")
        site = self._served(BoundedSite(api, self.reactor, connection_limit=limit))
        port = self.listening(
            endpoint.listen(site), f"the plaintext port {self.options['insecure-http']}"
        )
        address = port.getHost()
        self.log.warn(
            "--insecure-http is on: every process of this machine is an administrator of this CA, without proof, "
            "at http://localhost:{port}. Never where anything matters.",
            event="insecure-http",
            port=own_address.port_of(address),
        )

    def _open_crls(self, endpoint: IStreamServerEndpoint, shared: "_Shared") -> None:
        resource = PublicSite(shared.ca, self.options["rate-limit"], self.reactor)
        limit = self._limit(shared, "the CRL port")
        site = self._served(BoundedSite(resource, self.reactor, connection_limit=limit))
        port = self.listening(endpoint.listen(site), f"the CRL address {self.options['crl-http']}")
        address = port.getHost()
        url = own_address.published_at(address, self.options["public-url"])
        shared.ca.current.publish_at(url)
        self.log.info(
            "CRLs, OCSP answers and the issuing CA's certificate are at {url}, and certificates say so",
            event="publishing-at",
            url=url,
            port=own_address.port_of(address),
        )

    def _open_status(self, endpoint: IStreamServerEndpoint, ca: CaParts) -> None:
        address = self.options["status"]
        clear_way(address)
        site = self._served(status_site(health.questions(ca), (), self.reactor, self.log))
        port = self.listening(endpoint.listen(site), f"the status address {address}")
        refuse_public(port.getHost(), address)

    def _open_oidc(
        self, endpoint: IStreamServerEndpoint, shared: "_Shared", jwt: JwtIssuer
    ) -> None:
        options: OidcOptions = self.options["oidc"]
        issuer = jwt.issuer or ""
        resource = OidcSite(jwt.keys, issuer, self.options["rate-limit"], self.reactor)
        limit = self._limit(shared, "the OIDC port")
        site = self._served(BoundedSite(resource, self.reactor, connection_limit=limit))
        clear_way(options.address, "--oidc")
        factory: IProtocolFactory = site
        if self.web_certificate is not None:
            self.web_certificate.load(wall_clock())
            factory = over_web_tls(self.web_certificate, site, self.reactor)
        port = self.listening(endpoint.listen(factory), f"the OIDC address {options.address}")
        self.log.info(
            "The keys that sign JWT-SVIDs are served to OpenID Connect at {address}, for {issuer}",
            event="oidc-listening",
            address=options.address,
            issuer=issuer,
            port=own_address.port_of(port.getHost()),
        )

    def _open_federation(
        self, endpoint: IStreamServerEndpoint, shared: "_Shared", own: CaEndpoint
    ) -> None:
        options: FederationOptions = self.options["federation"]
        resource = BundleSite(shared.ca.public_bundle, self.options["rate-limit"], self.reactor)
        limit = self._limit(shared, "the federation port")
        site = self._served(BoundedSite(resource, self.reactor, connection_limit=limit))
        factory: IProtocolFactory = site
        if options.profile is Profile.HTTPS_SPIFFE:
            factory = over_web_tls(ShownSvid(own.contexts), site, self.reactor)
        elif self.federation_certificate is not None:
            self.federation_certificate.load(wall_clock())
            factory = over_web_tls(self.federation_certificate, site, self.reactor)
        else:
            clear_way(options.address, "--federation")
        port = self.listening(endpoint.listen(factory), f"the federation address {options.address}")
        found = port.getHost()
        is_here = options.address.startswith("unix:")
        self.log.info(
            "Our bundle is served to other trust domains ({profile}) at {url}",
            event="federation-listening",
            profile=str(options.profile),
            url=options.address if is_here else f"{own_address.reached_at(found, None)}{PATH}",
            port=own_address.port_of(found),
        )

    def _limit(self, shared: "_Shared", name: str) -> ConnectionLimit:
        return ConnectionLimit(shared.capacity, self.reactor, name, self.log)

    def _served(self, site: BoundedSite) -> BoundedSite:
        self.sites.append(site)
        return site


@frozen(eq=False)
class _Shared:
    """What all listeners of a CA have in common."""

    ca: CaParts
    attestors: Attestors
    throttle: Throttle
    capacity: Capacity
    """Of each."""

    def api(self, authenticator: Authenticator, *, guards_browsers: bool = False) -> CaApi:
        return CaApi(
            self.ca,
            authenticator,
            self.attestors,
            guards_browsers=guards_browsers,
            throttle=self.throttle,
        )
