"""Envoy's Secret Discovery Service v3: what a process of this machine may have, told an Envoy as its secrets.

One service, called in three ways: StreamSecrets, where each request names all that is wanted; DeltaSecrets, where it
changes what is wanted; FetchSecrets, which is answered once. See xds_protocol of Envoy's documentation.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred

from pki.errors import Malformed, discreet, printable
from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.server import Method, bidirectional, unary
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.limits.rate_limit import LimitedLog, Rate
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.workload.api_answers import refused
from twisted_mesh.workload.interface import ICaller, IWorkloads, Snapshot
from twisted_mesh.workload.sds_messages import (
    DELTA_SECRETS,
    FETCH_SECRETS,
    STREAM_SECRETS,
    DeltaRequest,
    Request,
)
from twisted_mesh.workload.sds_offer import Offer
from twisted_mesh.workload.sds_stream import DeltaStream, Heard, Outcome, WholeStream
from twisted_mesh.workload.workload_api import caller_of, demand_presence

log = logger("sds")
#: Processes of which it is remembered what they were told.
_MOST_TOLD = 4096
#: Of each kind of warning, as a process may give cause for any number.
_LOGGED = Rate(1, 10)
_R = TypeVar("_R", bound="_Asks")
_R_contra = TypeVar("_R_contra", contravariant=True)


class _Asks(Protocol):
    @property
    def node(self) -> str: ...


class _Answer(Protocol):
    def encode(self) -> bytes: ...


class _IStream(Protocol[_R_contra]):
    """What :class:`WholeStream` and :class:`DeltaStream` have in common."""

    @property
    def names(self) -> frozenset[str]: ...

    def ask(self, request: _R_contra, /) -> Heard: ...

    def due(self, offer: Offer) -> _Answer | None: ...


class _Told:
    """Which processes know why they have no identity: it is in their own log, and they come again."""

    def __init__(self) -> None:
        self._why: OrderedDict[int, str] = OrderedDict()

    def knows(self, caller: ICaller, why: str) -> bool:
        """Whether it was told just that; from now on it was."""
        if not caller.pid:
            return False
        known = self._why.pop(caller.pid, None) == why
        self._why[caller.pid] = why
        if len(self._why) > _MOST_TOLD:
            self._why.popitem(last=False)
        return known

    def forget(self, caller: ICaller) -> None:
        """It has an identity."""
        self._why.pop(caller.pid, None)


class SecretService:
    """SDS over the identities of this machine's processes."""

    def __init__(
        self, workloads: IWorkloads, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._workloads = workloads
        self._told = _Told()
        self._log = LimitedLog(log, _LOGGED, seconds)

    def methods(self) -> Mapping[str, Method]:
        """For a :class:`twisted_mesh.grpc.server.GrpcServer` whose callers are admitted by the same workloads."""
        return {
            STREAM_SECRETS: bidirectional(self._stream),
            DELTA_SECRETS: bidirectional(self._delta),
            FETCH_SECRETS: unary(self._fetch),
        }

    async def _stream(self, call: Call) -> None:
        session = _Session(call, WholeStream(), Request.parse, self._told, self._log)
        await session.run(self._workloads)

    async def _delta(self, call: Call) -> None:
        session = _Session(call, DeltaStream(), DeltaRequest.parse, self._told, self._log)
        await session.run(self._workloads)

    async def _fetch(self, call: Call, data: bytes) -> bytes:
        stream = WholeStream()
        try:
            stream.ask(Request.parse(data))
        except Malformed as error:
            raise GrpcError(Status.INVALID_ARGUMENT, str(error)) from None
        caller = caller_of(call)
        snapshot = await self._first(caller)
        demand_presence(caller)
        offer = Offer.of(snapshot)
        missing = sorted(name for name in stream.names if offer.get(name) is None)
        if snapshot.refusal is not None and (missing or not stream.names):
            raise refused(snapshot.refusal)
        if missing:
            names = ", ".join(printable(name, 200) for name in missing[:8])
            raise GrpcError(Status.NOT_FOUND, f"there is no secret {names} here: there is {offer}")
        answer = stream.due(offer)
        return evolve(answer, nonce="").encode() if answer else b""

    async def _first(self, caller: ICaller) -> Snapshot:
        told: Deferred[Snapshot] = Deferred()

        def tell(snapshot: Snapshot) -> None:
            if not told.called:
                told.callback(snapshot)

        following = self._workloads.follow(caller, tell)
        try:
            return await told
        finally:
            following.stop()


class _Session(Generic[_R]):
    """One stream: requests and snapshots as they come, and at most one answer under way."""

    def __init__(
        self,
        call: Call,
        stream: _IStream[_R],
        parse: Callable[[bytes], _R],
        told: _Told,
        limited_log: LimitedLog,
    ) -> None:
        self._call = call
        self._log = limited_log
        self._told = told
        self._caller = caller_of(call)
        self._stream = stream
        self._parse = parse
        self._offer = Offer()
        self._node = ""
        self._is_telling = False
        self._unknown: set[str] = set()
        """The names that the log has said of that they are not there."""
        self._why = ""
        """Why there is no identity, as the log has it."""
        self._with_crls: frozenset[str] = frozenset()

    async def run(self, workloads: IWorkloads) -> None:
        """Until the client ends it, or has no right to it any more."""
        following = workloads.follow(self._caller, self._follow)
        try:
            while (data := await self._call.receive()) is not None:
                self._hear(data)
        finally:
            following.stop()

    def _hear(self, data: bytes) -> None:
        demand_presence(self._caller)
        try:
            request = self._parse(data)
            heard = self._stream.ask(request)
        except Malformed as error:
            raise GrpcError(Status.INVALID_ARGUMENT, str(error)) from None
        self._node = printable(request.node, 100) or self._node
        if heard.outcome is Outcome.REFUSED:
            self._warn(
                "{who} did not take {names}, and keeps what it has: {words}",
                event="sds-refused",
                names=_listed(heard.about) or "an answer",
                words=discreet(heard.words),
            )
        elif heard.outcome is Outcome.APPLIED:
            log.debug(
                "{who} took {names}",
                event="sds-applied",
                who=self._who(),
                names=_listed(heard.about),
            )
        self._tell()

    def _follow(self, snapshot: Snapshot) -> None:
        if self._call.is_over:
            return
        try:
            demand_presence(self._caller)
            self._offer = self._admitted(snapshot)
        except GrpcError as error:
            self._call.fail(error)
            return
        self._note(snapshot)
        self._tell()

    def _admitted(self, snapshot: Snapshot) -> Offer:
        """What it may have. Raises :class:`GrpcError`.

        Who meets no entry is told so once, and waits when it comes again: an Envoy's own pause grows to half a
        minute, and the entry that it waits for is to reach it at once. Where not even bundles are known, no entry
        would change anything. Who has too many streams already would wait for ever.
        """
        refusal = snapshot.refusal
        if refusal is None:
            self._told.forget(self._caller)
        elif refusal.is_final:
            if snapshot.bundles is None or not self._told.knows(self._caller, str(refusal.problem)):
                raise refused(refusal)
            return Offer()
        elif refusal.is_last:
            raise refused(refusal)
        return Offer.of(snapshot)

    def _note(self, snapshot: Snapshot) -> None:
        why = "" if snapshot.refusal is None else str(snapshot.refusal.problem)
        if why and why != self._why:
            self._warn("{who} waits for its identity: {why}", event="sds-waits", why=why)
        self._why = why
        if snapshot.bundles is None:
            return
        with_crls = frozenset(str(at) for at, crls in snapshot.bundles.crls.items() if crls)
        known = {str(bundle.trust_domain) for bundle in snapshot.bundles.x509}
        for lost in sorted(self._with_crls.intersection(known) - with_crls):
            self._warn(
                "{who} is told no CRLs of {trust_domain} any more, as they are not all at hand: "
                "it believes also who is revoked there",
                event="sds-without-crls",
                trust_domain=lost,
            )
        self._with_crls = with_crls

    def _tell(self) -> None:
        if not self._is_telling:
            self._is_telling = True
            _ = spawn(self._tell_all(), "an answer of SDS", log)

    async def _tell_all(self) -> None:
        """Whatever came while the client read is told in one answer."""
        try:
            while not self._call.is_over and (answer := self._stream.due(self._offer)):
                self._call.send(answer.encode())
                await self._call.sent()
        finally:
            self._is_telling = False
        if self._offer.is_whole:
            self._name_unknown()

    def _name_unknown(self) -> None:
        names = self._stream.names
        missing = {name for name in names if self._offer.get(name) is None}
        for name in sorted(missing - self._unknown):
            self._warn(
                "{who} asks for the secret {name}, and gets it once it may have it: now it may have {offer} "
                "(an identity is bought by an entry: mesh-ctl entry create)",
                event="sds-unknown",
                name=printable(name, 200),
                offer=str(self._offer),
            )
        self._unknown = missing

    def _who(self) -> str:
        who = f"Envoy {self._node}" if self._node else "An SDS client"
        return f"{who} (process {self._caller.pid})" if self._caller.pid else who

    def _warn(self, text: str, *, event: str, **facts: str) -> None:
        self._log.warn(text, event=event, who=self._who(), **facts)


def _listed(names: tuple[str, ...]) -> str:
    shown = [printable(name, 200) for name in names[:8]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    return ", ".join(shown)


__all__ = ["SecretService"]
