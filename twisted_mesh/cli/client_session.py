"""One run of mesh-client on the reactor: an identity, then requests, then the exit status."""

import json
import sys
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError

from pki.errors import Malformed, PkiError, discreet
from pki.keys import KeyAlgorithm
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import X509Svid
from pki.validity import parse_duration, parse_lifetime
from twisted_mesh import observe
from twisted_mesh.api.client import CaClient
from twisted_mesh.cli import client_receipts, running
from twisted_mesh.cli.running import reactor
from twisted_mesh.cli.status import DONE, REFUSED, UNREACHABLE, UNUSABLE, status_of
from twisted_mesh.cli.stdout import OutputLost, put
from twisted_mesh.client import MeshHttpClient, Reply, ServerUrl, log_handshake
from twisted_mesh.files.keeper import FilesKeeper, federated_files
from twisted_mesh.files.writer import FilesWriter, InUse
from twisted_mesh.identity.agent import Agent, Wanted
from twisted_mesh.identity.bootstrap import ca_client, join_token
from twisted_mesh.identity.host_names import dns_option, ip_option
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.provider import IProvider
from twisted_mesh.identity.proving import Proving
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import sleep, within
from twisted_mesh.state.environment import default_state_dir
from twisted_mesh.tls import groups
from twisted_mesh.tls.alerts import RefusedByPeer, with_clocks
from twisted_mesh.trust.connections import Peer
from twisted_mesh.trust.freshness import freshness
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.workload.source_options import SourceOption

_log = logger("client")
#: How often, and after how many seconds each time, a directory that another writes to is looked at.
_LOOKS, _MOMENT = 20, 0.05


@frozen
class Session:
    """The options, understood."""

    path: str
    server: ServerUrl
    server_id: SpiffePattern
    wanted: Wanted
    client: CaClient | IProvider
    """Who gives the identity."""
    repeat: int
    interval: float
    requires_staple: bool
    timeout: float
    export: Path | None
    as_json: bool
    follow: bool = False
    """Whether to keep what is exported fresh, and call nobody."""
    audits: str | None = None
    """``--ct-audit``: whether logs are asked for the entries of whoever is met."""

    @classmethod
    def of(cls, options: dict[str, Any]) -> "Session":
        """Raises :class:`PkiError` for an option that cannot be used."""
        token = join_token(
            options["join_token"], options["join_token_file"], getattr(sys.stdin, "buffer", None)
        )
        requires_pq: bool = options["require_pq"]
        if requires_pq:
            groups.demand()
        state = Path(options["state_dir"]) if options["state_dir"] else default_state_dir()
        demand = client_receipts.demand_of(options, state)
        proving = Proving.parse(
            options["attest"],
            options["ca_url"],
            has_token=token is not None,
            requires_pq=requires_pq,
        )
        source = SourceOption.parse({name.replace("_", "-"): of for name, of in options.items()})
        domain = options["trust_domain"]
        trust_domain = TrustDomain.parse("mesh.local" if domain is None else domain)
        if source is not None and source.trust_domain is not None:
            trust_domain = source.trust_domain
        timeout = _seconds(options["timeout"])
        if options["follow"] and not options["export"]:
            raise Malformed("--follow keeps files fresh: say with --export in which directory")
        path = options["path"]
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise Malformed(
                f"{discreet(path, 80)!r} is no path: it begins with / and has no spaces"
            )
        algorithm = KeyAlgorithm.parse(options["key"], "--key")
        try:
            rotate_at = float(options["rotate_at"])
        except ValueError:
            rotate_at = 0.0
        if not 0.1 <= rotate_at <= 0.9:
            raise Malformed("--rotate-at is a share of the lifetime from 0.1 to 0.9, like 0.5")
        ours: str | None = options["spiffe_id"]
        if source is None:
            ours = ours or str(trust_domain.member("service", "payment-worker"))
        elif not options["follow"] and not options["server_id"] and source.trust_domain is None:
            raise Malformed(
                "with --source say who may answer: --server-id spiffe://TD/service/NAME"
            )
        theirs = options["server_id"] or str(trust_domain.member("service", "api-server"))
        revocation = RevocationOptions.parse(
            options["crl"],
            options["crl_issuer"],
            options["ocsp"],
            options["ocsp_origin"],
            options.get("on_stale"),
        )
        return cls(
            path=path,
            server=ServerUrl.parse(options["server"]),
            server_id=SpiffePattern.parse(theirs),
            wanted=Wanted(
                SpiffeId.parse(ours) if ours else None,
                state,
                tuple(map(dns_option, options["dns"])),
                tuple(map(ip_option, options["ip"])),
                parse_lifetime(options["ttl"]) if options["ttl"] else None,
                algorithm,
                rotate_at,
                token,
                freshness(options["revocation_max_age"], options["on_stale"]),
                revocation,
                PinSet.parse(
                    options["peer_pin"],
                    options["peer_pin_mode"],
                    options["peer_pin_until"],
                    now=wall_clock(),
                ),
                proving,
                requires_pq=requires_pq,
                demand=demand,
            ),
            client=source.source(reactor, revocation, _log)
            if source is not None
            else ca_client(
                reactor,
                options["ca_url"],
                options["ca_file"],
                state,
                trust_domain,
                ca_fingerprint=options["ca_fingerprint"],
                ca_user=options["ca_user"],
                timeout=timeout,
                requires_pq=requires_pq,
                demand=demand,
            ),
            repeat=options["repeat"],
            interval=_seconds(options["interval"]),
            requires_staple=options["require_staple"],
            timeout=timeout,
            export=Path(options["export"]) if options["export"] else None,
            as_json=options["output"] == "json",
            follow=options["follow"],
            audits=options["ct_audit"],
        )


def run(session: Session) -> int:
    """Run the session on the reactor; its exit status. Raises :class:`click.Abort` on Ctrl-C."""
    out = sys.stderr if session.as_json else sys.stdout
    return running.run(
        "mesh-client", lambda: _told(session), [observe.TextObserver(out, timestamps=False)]
    )


async def _told(session: Session) -> int:
    """A bug is in the log with all that is known of it, and the user is spared a traceback."""
    try:
        return await _converse(session)
    except (PkiError, CancelledError, OutputLost):
        raise
    except Exception:
        _log.failure("mesh-client has met a bug of its own")
        return UNUSABLE


async def _converse(session: Session) -> int:
    if session.follow and session.export is not None:
        return await _follow(session, session.export)
    deadline = reactor.seconds() + session.timeout
    agent = Agent(
        session.client,
        session.wanted,
        reactor,
        (session.server_id,),
        serves=False,
        log=_log,
        retries=lambda error, pause: _is_asked_again(agent.manager, error, deadline - pause),
    )
    manager = agent.manager
    auditor = client_receipts.auditor_for(agent, session.audits, is_brief=True)
    agent.start()
    try:
        if auditor is not None:
            auditor.startService()
        svid = await _first_certificate(manager, session)
        security = agent.security(serves=False, requires_staple=session.requires_staple)
        http = MeshHttpClient(
            reactor,
            session.server,
            security,
            session.timeout,
            lambda peer: log_handshake(peer, (agent.svid or svid).spiffe_id),
            # Of certificates by a Workload API few have host names: who answers is said by the ID alone.
            checks_host=isinstance(session.client, CaClient),
        )
        status = DONE
        exported = None
        for number in range(session.repeat):
            if number:
                await sleep(reactor, session.interval)
            if session.export and manager.svid is not exported and manager.svid is not None:
                exported = manager.svid
                await _export(session.export, exported, agent.trust_store)
            status = max(status, await _ask(http, session, (manager.svid or svid).spiffe_id))
        return status
    finally:
        if auditor is not None:
            auditor.stopService()
        await agent.stop()


async def _follow(session: Session, directory: Path) -> int:
    """Keep the files until a signal ends it."""
    writer = FilesWriter(directory)
    writer.take()
    deadline = reactor.seconds() + session.timeout
    agent = Agent(
        session.client,
        session.wanted,
        reactor,
        (),
        serves=False,
        connects=False,
        log=_log,
        retries=lambda error, pause: _is_asked_again(agent.manager, error, deadline - pause),
    )
    keeper = FilesKeeper(agent, writer, (), reactor, _log)
    auditor = client_receipts.auditor_for(agent, session.audits, is_brief=False)
    agent.start()
    try:
        if auditor is not None:
            auditor.startService()
        await _first_certificate(agent.manager, session)
        keeper.startService()
        await Deferred()
        return DONE
    finally:
        await keeper.stopService()
        if auditor is not None:
            auditor.stopService()
        await agent.stop()


async def _first_certificate(manager: CertificateManager, session: Session) -> X509Svid:
    """The first certificate; a CA that says no is not asked again, one that is away is, for a while."""
    waiting = manager.ready()
    try:
        return await within(reactor, session.timeout, _or_refusal(manager, waiting))
    except TimeoutError:
        raise manager.last_problem or session.client.too_slow() from None


def _is_asked_again(manager: CertificateManager, error: PkiError, latest: float) -> bool:
    """Whether a CA that gave no certificate is asked for another attempt, which begins at ``latest`` at the latest."""
    if manager.svid is not None:
        return True
    return status_of(error) == UNREACHABLE and reactor.seconds() < latest


async def _or_refusal(manager: CertificateManager, waiting: "Deferred[X509Svid]") -> X509Svid:
    while not waiting.called:
        problem = manager.last_problem
        if problem is not None and status_of(problem) != UNREACHABLE:
            raise problem
        await sleep(reactor, 0.02)
    return await waiting


async def _ask(http: MeshHttpClient, session: Session, ours: SpiffeId) -> int:
    _log.info(
        "Initiating mTLS connection to {server}...", event="connecting", server=str(session.server)
    )
    try:
        reply = await http.get(session.path)
    except PkiError as error:
        raise with_clocks(error, session.client.compared_clocks()) from None
    if reply.refusal is not None:
        raise RefusedByPeer(reply.refusal)
    _log.info("Connection established! Server verified our identity.", event="connected")
    _log.info("Sending request: GET {path}", event="request", path=session.path)
    body = reply.body.decode("utf-8", "replace")
    _log.info(
        "Response: {status} {phrase}\n  Body: {body}",
        event="response",
        status=reply.status,
        phrase=reply.phrase,
        body=body,
    )
    good = reply.status < 400
    if good:
        _log.info("mTLS mesh communication successful!", event="success")
    if session.as_json:
        put(json.dumps(_as_json(reply, ours)) + "\n")
    return DONE if good else REFUSED


def _as_json(reply: Reply, ours: SpiffeId) -> dict[str, object]:
    peer: Peer = reply.peer
    text = reply.body.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    return {
        "status": reply.status,
        "body": body,
        "server_id": str(peer.spiffe_id),
        "our_id": str(ours),
        "tls": {
            "version": peer.tls.version,
            "cipher": peer.tls.cipher,
            "group": peer.tls.group,
            "alpn": peer.tls.alpn,
            "chain": list(peer.tls.chain),
            "serials": list(peer.tls.serials),
        },
    }


async def _taken(directory: Path) -> FilesWriter:
    """Another export takes a moment; who keeps files there goes on. Raises :class:`InUse`, and StateError."""
    writer = FilesWriter(directory)
    for _ in range(_LOOKS):
        try:
            writer.take()
        except InUse:
            await sleep(reactor, _MOMENT)
        else:
            return writer
    writer.take()
    return writer


async def _export(directory: Path, svid: X509Svid, store: TrustStore) -> None:
    believed, own = store.trust.bundles, svid.spiffe_id.trust_domain
    bundle = believed.get(own)
    writer = await _taken(directory)
    try:
        writer.write(
            {
                "svid.pem": (svid.chain_pem(), 0o644),
                "svid_key.pem": (svid.key.to_pem(), 0o600),
                "svid_bundle.pem": (bundle.to_pem() if bundle else b"", 0o644),
                **federated_files(believed.without(own)),
            }
        )
    finally:
        writer.release()
    _log.info("Identity exported to {directory}", event="exported", directory=str(directory))


def _seconds(text: str) -> float:
    """A duration as the contract writes them, and ``100ms`` besides."""
    if text.endswith("ms") and text[:-2].isascii() and text[:-2].isdigit():
        return int(text[:-2]) / 1000
    return parse_duration(text).total_seconds()
