"""``GET /api/v1/trust``: what is to be believed and what was revoked since, at once or as soon as there is any."""

from collections.abc import Callable
from functools import lru_cache, partial

import msgspec
from attrs import define
from cryptography import x509
from msgspec import UNSET, UnsetType

from pki.errors import Malformed, discreet
from pki.svid.bundle import TrustBundle
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import certificates_pem
from pki.validity import parse_duration
from twisted_mesh.api.messages import LogNews, WrittenTrust
from twisted_mesh.api.revocation_rows import row_of
from twisted_mesh.ca.api.request import Call, demand_instance
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.published_trust import Published
from twisted_mesh.stores.records import Feed

#: Seconds that a caller may wait.
LEAST_WAIT, MOST_WAIT = 1, 60
#: Seconds that a reading may be old by which a wait ends without news; the answer says how old it is.
_RECENT = 1.0


@define(eq=False, repr=False)
class _Told:
    """A feed, and its revocations as JSON, for all who get them."""

    feed: Feed
    revocations: msgspec.Raw

    @classmethod
    async def read(cls, ca: CaParts, after: int, store: str) -> "_Told":
        feed = await ca.record.revocations(after, store)
        return cls(feed, msgspec.Raw(msgspec.json.encode([*map(row_of, feed.revocations)])))

    def has_news(self, after: int, store: str) -> bool:
        """For whoever is at that position of that store's feed."""
        feed = self.feed
        return feed.position != after or store not in ("", feed.store) or bool(feed.revocations)


async def trust(ca: CaParts, call: Call) -> Answer:
    """What is new since ``after``. With ``wait`` that is worth waiting for, if there is nothing.

    The audit log moves with each certificate that is issued, and nobody is woken for that: it is told with
    the next answer, at the end of the wait at the latest.
    """
    after, store, wait = call.number("after", 0), call.query.get("store", ""), waited_for(call)
    log_size = call.number("log", 0) if "log" in call.query else None
    _take_acknowledgement(ca, call)
    waited, notifier = 0.0, ca.notifier
    published_now = await ca.told_to(call.principal)
    heard = call.query.get("edition", "")
    if notifier is None:
        told = await _Told.read(ca, after, store)
    elif wait:
        told, waited = await _news(ca, notifier, call, wait, published_now)
    else:
        told = await notifier.fresh((after, store), partial(_Told.read, ca, after, store))
    feed = told.feed
    log: LogNews | UnsetType | None = UNSET
    if log_size is not None:
        # Who comes from another store may know another log of the same size.
        log = await _log_since(ca, log_size, call.principal.proof, is_ours=store == feed.store)
    published = published_now()
    return json_answer(
        WrittenTrust(
            store=feed.store,
            generation=feed.position,
            more=feed.more,
            waited=round(waited, 3),
            bundles={str(b.trust_domain): _jwks(b) for b in published.bundles},
            revocations=told.revocations,
            log=log,
            edition=published.edition,
            issuers={key_id: _pems(above) for key_id, above in published.issuers.items()},
            revoked_authorities=[*map(row_of, published.revoked_authorities)],
            federated_revocations=UNSET
            if heard == published.edition or not published.federated_revocations
            else [*map(row_of, published.federated_revocations)],
            withdrawn_pins=sorted(published.withdrawn_pins),
            withdrawn_logs=sorted(published.withdrawn_logs) or UNSET,
        )
    )


def _take_acknowledgement(ca: CaParts, call: Call) -> None:
    """What the caller says that it believes and serves. Raises :class:`Malformed`."""
    instance = call.query.get("instance")
    if instance is None:
        return
    demand_instance(instance)
    if "holds" not in call.query:
        raise Malformed("the parameter instance goes with holds: what that one believes")
    top = call.query.get("top")
    ca.acknowledgements.take(
        call.principal.proof,
        instance,
        call.number("holds", 0),
        None if top is None else Fingerprint.parse(top),
        call.certificate_ends,
    )


async def _news(
    ca: CaParts, notifier: Notifier, call: Call, wait: float, published: Callable[[], Published]
) -> tuple[_Told, float]:
    """The feed once there is news in it, and for how long that was waited for; at the end of the wait in any case."""
    after, store = call.number("after", 0), call.query.get("store", "")
    read = partial(_Told.read, ca, after, store)
    began = notifier.clock.seconds()
    gone = call.gone()
    # What has changed since the last answer is news too, though nobody was waiting at that moment.
    edition = call.query.get("edition", published().edition)
    who = call.principal.proof
    seen = notifier.number
    waited = 0.0
    told: _Told
    has_waited_enough = _may_not_wait(notifier, call)
    while True:
        if notifier.has_news and not has_waited_enough:
            # Of a burst: it is told together.
            await notifier.wait(seen, who, wait, gone, call.holder)
        seen = notifier.number
        waited = notifier.clock.seconds() - began
        if has_waited_enough:
            told, looked_at = await notifier.recent((after, store), read, min(_RECENT, waited))
            # Not for longer than until the record was looked at: so old is what the caller knows now.
            return told, max(0.0, looked_at - began)
        told = await notifier.shared((after, store), read)
        if told.has_news(after, store) or published().edition != edition or call.is_gone:
            return told, waited
        # Again: others have come while that was read.
        if _may_not_wait(notifier, call):
            has_waited_enough = True
            continue
        is_woken = await notifier.wait(seen, who, wait - waited, gone, call.holder)
        has_waited_enough = not is_woken or notifier.is_closed or call.is_gone


@lru_cache(maxsize=2048)
def _jwks(bundle: TrustBundle) -> msgspec.Raw:
    """A bundle as it goes out, for all who get it."""
    return msgspec.Raw(msgspec.json.encode(bundle.to_jwks_object()))


@lru_cache(maxsize=256)
def _pems(above: tuple[x509.Certificate, ...]) -> list[str]:
    """What is served above some leaves, for all who hear of it."""
    return [certificates_pem([cert]).decode("ascii") for cert in above]


def _may_not_wait(notifier: Notifier, call: Call) -> bool:
    """Whether as many wait already as may; then the caller is to come back on another connection."""
    is_full = not notifier.has_room(call.principal.proof, call.holder)
    if is_full:
        call.close_after()
    return is_full


def waited_for(call: Call) -> float:
    """The parameter ``wait``, in seconds; 0 for none. Raises :class:`Malformed`."""
    text = call.query.get("wait")
    if text is None:
        return 0.0
    seconds = parse_duration(text).total_seconds()
    if not LEAST_WAIT <= seconds <= MOST_WAIT:
        raise Malformed(
            f"the parameter wait is from {LEAST_WAIT}s to {MOST_WAIT}s, and not {discreet(text, 20)}"
        )
    return seconds


async def _log_since(ca: CaParts, size: int, who: str, *, is_ours: bool) -> LogNews | None:
    """The latest checkpoint with the proof that leads there from ``size``; None where that is it."""
    latest = ca.log.latest
    if latest is None or ca.log.contradiction is not None:
        return None  # what was signed last leads nowhere: the CA itself says so
    if is_ours:
        ca.log.was_seen(size, who)
    if is_ours and latest.checkpoint.size == size:
        return None
    if ca.notifier is None:
        return await _log_news(ca, size)
    return await ca.notifier.shared(
        ("log", size, latest.checkpoint.size), partial(_log_news, ca, size)
    )


async def _log_news(ca: CaParts, size: int) -> LogNews | None:
    log, latest = ca.log, ca.log.latest
    if latest is None:
        return None
    # The log may grow meanwhile: the proof leads to the checkpoint that comes with it, and to no later one.
    proof = await log.consistency(size)
    return LogNews(str(log.key.verifier), latest.note, [hash.hex() for hash in proof])
