"""What a parent asks the CA for its workers: a certificate for its own ID and a key of theirs, and what is public.

It may be an administrator there, by its user or its certificate. Whatever that would let it do, no worker has done
through it: a question that is not one of these few is refused here.
"""

import re
from collections.abc import Awaitable
from urllib.parse import parse_qsl

import msgspec
from attrs import define, field
from msgspec import UNSET
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, PkiError, printable
from pki.issuing.csr import load_csr
from pki.keys.algorithm import PublicKey
from pki.spiffe import SpiffeId
from twisted_mesh.api.attestation_messages import AttestationMember
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.messages import ConnectionsReport, SignRequest
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.api.trust_news import WHOLE_BUNDLE
from twisted_mesh.evidence.data import AttestationData
from twisted_mesh.http.json import parse_json
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.proving import Proving, wants_evidence
from twisted_mesh.runtime.log import logger
from twisted_mesh.workers.messages import MOST_TO_WORKER, Answered, Asked

#: Questions of one worker that may be open at once.
MOST_OPEN = 32
#: Seconds that a CA may be asked to wait.
_LONGEST_WAIT = 60
_LARGEST = MOST_TO_WORKER // 4 * 3 - 64 * 1024
_SIGN = ("POST", "/api/v1/sign")
_PLAIN = frozenset((("GET", WHOLE_BUNDLE), ("GET", "/api/v1/crls")))
_TRUST = ("GET", "/api/v1/trust")
_OCSP = ("POST", "/api/v1/ocsp")
_CONNECTIONS = ("POST", "/api/v1/connections")
_QUERY = re.compile(r"[A-Za-z0-9._~%&=+-]{1,700}", re.ASCII)
_OF_TRUST = frozenset(("after", "edition", "holds", "instance", "log", "store", "top", "wait"))


class NotRelayed(PkiError):
    """A worker asked what is not asked for it."""

    code = Code.NOT_AUTHORIZED


class NotVouched(PkiError):
    """The parent has no certificate that is good now, and vouches for nobody."""

    code = Code.NO_IDENTITY


@define(eq=False)
class Relay:
    """Asks for all workers of one parent."""

    client: CaClient
    """Which shows the parent's own certificate, where the CA is asked over TLS."""
    spiffe_id: SpiffeId
    """The parent's, and so the workers'."""
    manager: CertificateManager
    """Of the parent's own certificate."""
    proving: Proving | None = None
    """What the parent shows the CA where that wants evidence for a worker's key too; no worker sees it."""
    log: Logger = field(factory=lambda: logger("server"))
    _open: dict[int, int] = field(factory=dict, init=False)
    """Questions that are open, by worker."""

    async def answer(self, worker: int, asked: Asked) -> Answered:
        """What the CA says, or why it is not asked. Never raises."""
        self._open[worker] = self._open.get(worker, 0) + 1
        try:
            if self._open[worker] > MOST_OPEN:
                raise NotRelayed(f"a worker may have {MOST_OPEN} questions open, and no more")
            body = await self._ask(asked)
            if len(body) > _LARGEST:
                raise Malformed(f"the CA's answer of {len(body)} bytes is too long for a worker")
        except CaRefused as error:
            return self._answered(asked, error.status, error)
        except PkiError as error:
            return self._answered(asked, 0, error)
        finally:
            self._open[worker] -= 1
        return Answered(asked.number, 200, body, clocks=self.client.compared_clocks())

    def _answered(self, asked: Asked, status: int, error: PkiError) -> Answered:
        return Answered(
            asked.number,
            status,
            problems=[*error.problems],
            clocks=self.client.compared_clocks(),
        )

    def _ask(self, asked: Asked) -> Awaitable[bytes]:
        """Raises :class:`PkiError` for what is not asked for a worker."""
        path, question, query = asked.path.partition("?")
        route = (asked.method, path)
        if 0 <= asked.wait <= _LONGEST_WAIT:
            if route == _SIGN and not question:
                return self._sign(asked)
            if (asked.method, asked.path) in _PLAIN and asked.body is None:
                return self.client.send(asked.method, asked.path)
            if route == _TRUST and asked.body is None and _is_of_trust(query):
                return self.client.send(asked.method, asked.path, wait=asked.wait)
            if route == _OCSP and not question and asked.body:
                return self.client.send(asked.method, asked.path, asked.body)
            if route == _CONNECTIONS and not question:
                report = parse_json(asked.body or b"", ConnectionsReport)
                return self.client.send(asked.method, asked.path, report)
        raise NotRelayed(
            f"{printable(asked.method, 20)} {printable(asked.path, 100)} is nothing that a worker needs: "
            "it is not asked for it"
        )

    def _sign(self, asked: Asked) -> Awaitable[bytes]:
        if self.manager.seconds_left <= 0:
            raise NotVouched(
                "the parent's own certificate is not good any more, and it vouches for no worker until there is "
                "another: see why its renewals fail"
            )
        request = parse_json(asked.body or b"", SignRequest)
        if request.token is not None:
            raise NotRelayed(
                "a worker has no join token: the parent's certificate is what proves it"
            )
        if request.requested_id != str(self.spiffe_id):
            raise NotRelayed(
                f"a worker of {self.spiffe_id} has that ID and no other, and not "
                f"{printable(request.requested_id, 200)}"
            )
        if request.attestation is not UNSET:
            raise NotRelayed("a worker has no evidence of the platform: the parent shows its own")
        return self._signed(request, asked)

    async def _signed(self, request: SignRequest, asked: Asked) -> bytes:
        headers = {"idempotency-key": asked.idempotency_key} if asked.idempotency_key else {}

        def with_evidence(shown: AttestationData) -> Awaitable[bytes]:
            member = AttestationMember.of(shown)
            whole = msgspec.structs.replace(request, attestation=member)
            return self.client.send("POST", asked.path, whole, headers)

        try:
            return await self.client.send("POST", asked.path, request, headers)
        except CaRefused as error:
            if self.proving is None or not wants_evidence(error):
                raise
        return await self.proving.shown(
            self.client, _key_of(request), self.spiffe_id.trust_domain, with_evidence, self.log
        )


def _key_of(request: SignRequest) -> PublicKey:
    """Raises :class:`Malformed`: a CA may have asked for evidence before it looked at the CSR."""
    try:
        key = load_csr(request.csr.encode("ascii", "replace")).public_key()
    except HOSTILE_INPUT:
        key = None
    if not isinstance(key, PublicKey):
        raise Malformed("the worker's CSR has no key that could be certified")
    return key


def _is_of_trust(query: str) -> bool:
    if not _QUERY.fullmatch(query):
        return False
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True)
    except ValueError:
        return False
    names = [name for name, _ in pairs]
    return len(set(names)) == len(names) and _OF_TRUST.issuperset(names)
