"""``twistd mesh-signer``: holds a CA's keys in a process of its own, and judges what they sign."""

import os
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.web.resource import IResource

from pki.errors import Malformed
from pki.keys import KeyAlgorithm, MemoryKey
from twisted_mesh.custody import open_store
from twisted_mesh.http.server import BoundedSite, CallerKey, Limits, address_of_peer
from twisted_mesh.http.status_site import LIVENESS, Page
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.pins import Pins
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.rate_limit import Rate, TokenBuckets
from twisted_mesh.monitoring import metrics
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.meters import Readings, show
from twisted_mesh.runtime.socket_owner import listener_at
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.runtime.tasks import sleep
from twisted_mesh.signer.directory import SignerDirectory
from twisted_mesh.signer.door import LocalCallers, RemoteCallers, tell_of_refusal
from twisted_mesh.signer.judging import Judging
from twisted_mesh.signer.keyring import Keyring
from twisted_mesh.signer.messages import MAX_BODY
from twisted_mesh.signer.meters import OF_A_SIGNER
from twisted_mesh.signer.record import Record
from twisted_mesh.signer.service import Signer
from twisted_mesh.signer.signing_log import SigningLog
from twisted_mesh.signer.site import SignerSite
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.taps.early_port import EarlyReactor, is_answered
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import early_endpoint, listening_endpoint
from twisted_mesh.taps.reread import Reread
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.taps.signer_options import Options
from twisted_mesh.tls.pinned_server import PinnedCallers, over_pinned_tls
from twisted_mesh.tls.self_signed import SelfSigned

#: Connections at each door: each may bring a body of some 20 MB.
_MOST = 64
#: Refusals that are written into the signer's log; others are only counted by its process's log.
_REFUSALS = Rate(1, 100)
_TLS_KEY = "signer-tls.key"


class SignerService(MeshService):
    """The signer: its record and log, its keys, its doors."""

    options: Options
    signer: Signer | None = None
    """None until the start has come to it."""

    def understand(self) -> None:
        """Where it is called, and with what its keys are opened. Raises :class:`PkiError`."""
        options = self.options
        self.directory = SignerDirectory(options["state-dir"])
        self.path: Path = options["socket"] or self.directory.socket
        if (objection := too_long(self.path)) is not None:
            raise StartError(f"the socket's path {objection}: choose a shorter --socket")
        self.tls_endpoint = self.status_endpoint = None
        if options["listen"]:
            self.tls_endpoint = early_endpoint(self.reactor, options["listen"])
        if options["status"]:
            self.status_endpoint = listening_endpoint(self.reactor, options["status"], "127.0.0.1")
        # Now: after twistd's fork there is no standard input any more.
        passphrase = read_passphrase(options["key-passphrase-file"], options["key-passphrase-fd"])
        pins = Pins(options["token-pin-file"], os.environ.get("CREDENTIALS_DIRECTORY"))
        pins.take(options["token-pin-fd"])
        ground = StoreGround(self.reactor, pins, self.directory.private)
        uri = options["key-store"]
        self.stores = KeyStores({uri: open_store(uri, ground)} if uri else {})
        self.files = KeyFiles(self.directory.private, passphrase, self.stores.key)
        self.sites: list[BoundedSite] = []

    async def start(self) -> None:
        """Take the directory, read record, log and keys, and bind the doors. Raises :class:`PkiError`."""
        options, policy = self.options, self.options["signing-policy"]
        self.directory.prepare(is_shared=bool(options["allow-uid"]))
        self.directory.lock()
        record = Record(self.directory.record)
        record.open(str(policy.trust_domain))
        log = SigningLog(self.directory.log)
        log.open(record.log_end)
        self.record, self.signing_log = record, log
        refusals = TokenBuckets(_REFUSALS, self.reactor.seconds)
        judging = Judging(
            record,
            log,
            policy,
            wall_clock,
            deferToThread,
            self.log,
            lambda: not refusals.take("refusals"),
        )
        keyring = Keyring(self.files, self.stores, deferToThread, options["key-store"])
        self.stores.start(self.reactor)
        signer = Signer(
            keyring,
            judging,
            self.reactor,
            wall_clock,
            self.log,
            options["certificate-rate"],
            options["revocation-rate"],
        )
        signer.load()
        self.files.seal()
        self.signer = signer
        self.questions = {"/livez": LIVENESS, "/readyz": self._readiness, "/metrics": metrics}
        show("signer", Readings(signer, OF_A_SIGNER))
        self._open_socket(signer)
        if self.tls_endpoint is not None:
            self._open_tls(signer, self.tls_endpoint)
        self.serve_status(self.status_endpoint)

    def _open_socket(self, signer: Signer) -> None:
        path = self.path
        if path.is_socket():
            if is_answered(path):
                owner = listener_at(str(path)) or "who it is, root sees with ss -lxp"
                raise StartError(
                    f"the socket {path} is another program's ({owner}): stop that, or choose another --socket"
                )
            path.unlink()  # of a signer that was killed
        callers = LocalCallers(self.options.uids)
        site = self._site(SignerSite(signer, callers.who, self.reactor), "the socket", callers.key)
        early: Any = EarlyReactor(self.reactor)
        # Others may come, where they are named: who they are the kernel says.
        mode = 0o666 if self.options["allow-uid"] else 0o600
        endpoint = UNIXServerEndpoint(early, str(path), backlog=64, mode=mode)
        self.listening(endpoint.listen(site), f"the socket {path}")

    def _open_tls(self, signer: Signer, endpoint: IStreamServerEndpoint) -> None:
        name = _TLS_KEY
        if self.files.exists(name):
            key = self.files.load(name, MemoryKey.from_pem)
            self.files.seal()
        else:
            key = MemoryKey.generate(KeyAlgorithm.EC_P256)
            self.files.write(name, key)
        own = SelfSigned.of(key, "mesh-signer", wall_clock())
        pinned = PinnedCallers(own, frozenset(self.options["client-pin"]), tell_of_refusal)
        callers = RemoteCallers(pinned)
        site = self._site(
            SignerSite(signer, callers.who, self.reactor), "the TLS address", address_of_peer
        )
        wrapped = over_pinned_tls(pinned, site, self.reactor)
        port = self.listening(endpoint.listen(wrapped), f"the TLS address {self.options['listen']}")
        self.log.info(
            "Called over TLS at {address} by pinned keys. Its own, for signer:https://HOST:PORT?pin=, is {pin}",
            event="signer-tls",
            address=str(getattr(port.getHost(), "port", port.getHost())),
            pin=str(pinned.own_pin),
        )

    def _site(self, root: SignerSite, what: str, caller_key: CallerKey) -> BoundedSite:
        limit = ConnectionLimit(Capacity.of(_MOST), self.reactor, what, self.log)
        limits = evolve(Limits(), body_bytes=MAX_BODY)
        site = BoundedSite(cast(IResource, root), self.reactor, limits, limit, caller_key)
        self.sites.append(site)
        return site

    async def run(self) -> None:
        """Listen, and say so, once the reactor turns and heeds signals."""
        await sleep(self.reactor, 0)
        self.open()
        keys = len(self.record.all_keys())
        self.log.info(
            "Signing for {trust_domain} at unix:{path}, for {uids}; {keys} keys, new ones in {store}\n"
            "Ready to sign.",
            event="ready",
            trust_domain=str(self.options["signing-policy"].trust_domain),
            path=str(self.path),
            uids=", ".join(f"uid {uid}" for uid in sorted(self.options.uids)),
            keys=keys,
            store=(self.options["key-store"] or "files").partition("?")[0],
        )

    async def _readiness(self) -> Page:
        problem = None if self.signer is None else self.signer.problem
        if problem is None:
            return Page(b'{"status":"ready"}')
        import msgspec

        body = {"status": "not ready", "code": problem.code, "detail": str(problem)}
        return Page(msgspec.json.encode(body), 503)

    def rereads(self) -> list[Reread]:
        """The log level, and the policy; a PIN that was wrong may be tried again."""
        found = super().rereads()
        if self.options["policy"] is not None and self.signer is not None:
            found.append(Reread(f"--policy {self.options['policy']}", self._reread_policy))
        if self.stores.stores:
            pin_file = self.options["token-pin-file"]
            what = "the key store's PIN" if pin_file is None else f"--token-pin-file {pin_file}"
            found.append(Reread(what, self.stores.try_again))
        return found

    async def _reread_policy(self) -> str:
        before, policy = self.options["signing-policy"], self.options.read_policy()
        if policy.trust_domain != before.trust_domain:
            raise Malformed(
                f"it is for {policy.trust_domain} now, and a signer is of one trust domain: {before.trust_domain}"
            )
        if self.signer is not None:
            self.signer.judging.go_by(policy)
        self.options["signing-policy"] = policy
        return "" if policy == before else "it has changed, and counts from now on"

    async def drain(self, seconds: float) -> None:
        """Let what is being signed finish, within so many seconds."""
        late = 0
        for site in self.sites:
            late += await site.drain(seconds)
        if late:
            self.cut_off(late, seconds)

    async def close(self) -> None:
        """Release record, log and keys."""
        await self.stores.stop()
        if self.signer is not None:
            self.signing_log.close()
            self.record.close()
        self.directory.unlock()


def makeService(options: Options) -> IService:
    """What ``twistd mesh-signer`` starts."""
    return cast(IService, service_of(SignerService, options))
