"""Cosignatures: each head that lasts a moment is shown to every witness, and their word is put into the checkpoint.

A witness that has cosigned more than is here has the log's own signature on it: the log was put back, and adds nothing
any more.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.codes import Code
from pki.ct.tree_head import cosignatures_of
from pki.errors import PkiError, Problem, printable
from pki.tlog.note import BadNote, NoteSignature, read_signatures
from twisted_mesh.ctlog.errors import ContradictsItself
from twisted_mesh.ctlog.head_key import HeadKey
from twisted_mesh.ctlog.store import Head
from twisted_mesh.ctlog.witness_address import WitnessAddress
from twisted_mesh.runtime.tasks import Ticker, spawn

#: Seconds between two rounds, and until a round is tried again in which somebody was away.
_PACE, _AGAIN = 1.0, 10.0

#: From a path and what is sent there (None to read) to status and body. Raises :class:`PkiError`.
Ask = Callable[[str, bytes | None], Awaitable[tuple[int, bytes]]]
#: From two sizes to the proof that the later tree extends the earlier one.
Prove = Callable[[int, int], Awaitable[Sequence[bytes]]]


@define(eq=False, repr=False)
class Witness:
    """One of them."""

    address: WitnessAddress
    ask: Ask
    size: int = 0
    """What it has cosigned last, as far as is known."""
    cosigned_at: int = 0
    """By its clock, in seconds since 1970; 0 where it has cosigned nothing in this life."""
    problem: Problem | None = None
    """Why it did not cosign the last time."""

    async def cosign(
        self, head: Head, key: HeadKey, prove: Prove, size: Callable[[], int]
    ) -> NoteSignature:
        """Its line for that head. Raises :class:`PkiError`; :class:`ContradictsItself` where it knows of more.

        More than ``size()`` entries, that is: a stranger may show it a head before we do, which is ours and newer.
        """
        status, body = await self._shown(head, prove)
        if status == HTTPStatus.CONFLICT:
            self.size = _size(body)
            if self.size > head.size:
                await self._demand_known(size, key)
            else:
                status, body = await self._shown(head, prove)
        if status == HTTPStatus.OK:
            return self._line(head, body)
        said = printable(body.decode("utf-8", "replace").strip(), 200)
        raise BadNote(f"it answers {status}: {said}")

    async def _shown(self, head: Head, prove: Prove) -> tuple[int, bytes]:
        proof = await prove(self.size, head.size)
        return await self.ask("/add-checkpoint", _request(self.size, proof, head))

    def _line(self, head: Head, body: bytes) -> NoteSignature:
        lines = body.decode("utf-8", "replace")
        found = cosignatures_of(head.note + lines, (self.address.key,))
        ours = [
            line
            for line in read_signatures(lines)
            if (line.name, line.key_hash) == (self.address.key.name, self.address.key.key_hash)
        ]
        if not found or not ours:
            raise BadNote("its answer has no cosignature by its key")
        self.size, self.cosigned_at = head.size, found[0].timestamp
        return ours[0]

    async def _demand_known(self, size: Callable[[], int], key: HeadKey) -> None:
        """Raises :class:`ContradictsItself` where it shows more than is here, signed by us."""
        status, body = await self.ask(f"/checkpoint/{key.public.log_id.hex()}", None)
        if status != HTTPStatus.OK:
            return
        shown, here = key.open(body.decode("utf-8", "replace")), size()
        if shown.size > here:
            raise ContradictsItself(
                f"the witness {self.address.key.name} has a checkpoint of {shown.size} entries that this log has "
                f"signed, and here are {here}: the state directory was put back by an older one. The log is lost "
                "as one that grows: serve it with --read-only, and begin another"
            )


@define(eq=False, repr=False)
class Witnesses:
    """All of them, asked in rounds: who is away holds nobody up, and no receipt."""

    key: HeadKey
    witnesses: Sequence[Witness]
    prove: Prove
    publish: Callable[[Head, Sequence[NoteSignature], bool], Awaitable[None]]
    """Put lines into the checkpoint of that head; and whether they are of all."""
    halt: Callable[[ContradictsItself], None]
    size: Callable[[], int]
    """How many entries were signed for by now: before anybody sees a head, it is that many."""
    clock: IReactorTime
    log: Logger
    _wanted: Head | None = field(default=None, init=False)
    _done: Head | None = field(default=None, init=False)
    """What was shown in the last round."""
    _ended: float = field(default=0.0, init=False)
    _is_asking: bool = field(default=False, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, _PACE, self._look, "asking witnesses", self.log)

    def start(self) -> None:
        """Ask from now on."""
        if self.witnesses:
            self._ticker.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ticker.stop()

    def on_head(self, head: Head) -> None:
        """That one is published."""
        self._wanted = head

    def _look(self) -> None:
        head = self._wanted
        if head is None or not head.size or self._is_asking:
            return
        is_away = any(witness.problem is not None for witness in self.witnesses)
        rested = self.clock.seconds() - self._ended >= _AGAIN
        if head is not self._done or (is_away and rested):
            self._is_asking = True
            _ = spawn(self._round(head), "asking witnesses", self.log)

    async def _round(self, head: Head) -> None:
        try:
            asking = [Deferred.fromCoroutine(self._asked(one, head)) for one in self.witnesses]
            found = await gatherResults(asking)
            lines = [line for line in found if line is not None]
            if lines:
                await self.publish(head, lines, len(lines) == len(self.witnesses))
        except ContradictsItself as error:
            self.halt(error)
        except PkiError as error:
            self.log.warn(
                "Cosignatures could not be written: {error}",
                event="ctlog-cosignatures-unwritten",
                error=str(error),
            )
        finally:
            self._done, self._ended, self._is_asking = head, self.clock.seconds(), False

    async def _asked(self, witness: Witness, head: Head) -> NoteSignature | None:
        name, before = witness.address.key.name, witness.problem
        try:
            line = await witness.cosign(head, self.key, self.prove, self.size)
        except ContradictsItself as error:
            self.halt(error)
            witness.problem = error.problems[0]
            return None
        except PkiError as error:
            witness.problem = Problem(
                Code.LOG_AWAY, f"the witness {name} does not cosign: {error}", "ask who runs it"
            )
            if before is None:
                self.log.warn(
                    "The witness {witness} does not cosign: {error}. It is asked again by itself",
                    event="ctlog-witness-away",
                    witness=name,
                    error=str(error),
                )
            return None
        witness.problem = None
        if before is not None:
            self.log.info(
                "The witness {witness} cosigns again", event="ctlog-witness-back", witness=name
            )
        return line


def _request(old: int, proof: Sequence[bytes], head: Head) -> bytes:
    lines = [f"old {old}", *(base64.b64encode(one).decode() for one in proof)]
    return ("\n".join(lines) + f"\n\n{head.note}").encode()


def _size(body: bytes) -> int:
    text = body.decode("ascii", "replace").strip()
    if not text.isdigit() or len(text) > 13:
        raise BadNote("it answers 409, and no size")
    return int(text)
