"""Nothing that is signed leaves before it is on record; where it does not come on record, it is thrown away."""

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import LogEvent

from pki.audit.log import Act, Entry
from pki.issuing.authority import SigningFailed
from pki.issuing.csr import build_csr
from pki.policy.principal import Kind, Principal, workload
from pki.policy.selector import Selector
from pki.svid.revocation_set import Reason
from tests.authorities import BACKEND, NOW, key
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, entry, result_of, settled
from twisted_mesh.limits.quota import Allowance
from twisted_mesh.stores.commands import RecordIntent, RecordIssue
from twisted_mesh.stores.records import (
    EntryGone,
    IssuedCertificate,
    Query,
    Revoked,
    Status,
    StoreError,
)

CSR = build_csr(key(9), BACKEND)


@define
class Held:
    """A store that takes its time over what is signed: until it is let go, that is on no disk."""

    store: Any
    waiting: list[tuple[Any, Deferred[Any]]] = field(factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def apply(self, command: Any) -> Any:
        if not isinstance(command, RecordIssue):
            return self.store.apply(command)
        self.waiting.append((command, Deferred()))
        return self.waiting[-1][1]

    def go_on(self) -> None:
        """Write it, and answer."""
        while self.waiting:
            command, answer = self.waiting.pop(0)
            self.store.apply(command).chainDeferred(answer)

    def lose(self, *, is_written: bool) -> None:
        """Say that it could not be written, whether it was or not."""
        while self.waiting:
            command, answer = self.waiting.pop(0)
            if is_written:
                result_of(settled(self.store.apply(command)))
            answer.errback(StoreError("store memory: the disk reports errors"))


@pytest.fixture
def held(rig: CaRig) -> Held:
    held = Held(rig.store)
    rig.ca.issuance.store = held  # type: ignore[assignment]
    return held


def begun(rig: CaRig, principal: Any = ADMIN, idempotency_key: str | None = None) -> Deferred[Any]:
    """A request that is under way."""
    return Deferred.fromCoroutine(
        rig.ca.certificates.sign(principal, CSR, str(BACKEND), None, idempotency_key)
    )


def records(rig: CaRig) -> list[IssuedCertificate]:
    return list(rig.calls.result(rig.store.store.list(Query(now=rig.time))).certificates)


def acts(rig: CaRig) -> list[str]:
    result_of(rig.log.extend())
    listed, _ = rig.calls.result(rig.store.store.log_entries(0, 1000))
    return [Entry.parse(logged.entry).act for logged in listed]


def test_it_is_signed_then_recorded_in_one_step_and_then_answered(rig: CaRig, held: Held) -> None:
    asked = begun(rig)
    assert rig.order == ["sign"]
    assert records(rig) == []
    assert not asked.called
    held.go_on()
    issued = result_of(settled(asked))
    (record,) = records(rig)
    assert (record.serial, record.status(NOW)) == (issued.serial, Status.VALID)
    assert rig.calls.result(rig.store.store.find(issued.serial)).der == issued.der
    assert rig.calls.result(rig.store.store.open_intents()) == ()
    assert acts(rig) == [Act.ISSUE]


@pytest.mark.parametrize("of", ["the key", "the store"])
def test_whoever_else_may_see_it_is_recorded_as_an_intent_first(rig: CaRig, of: str) -> None:
    rig.signer.is_in_memory = of != "the key"
    rig.store.is_shared = of == "the store"
    rig.sign()
    assert rig.order == ["RecordIntent", "sign", "RecordCertificate"]
    assert acts(rig) == [Act.ISSUE]


def test_what_cannot_be_recorded_is_thrown_away(
    rig: CaRig, held: Held, logged: list[LogEvent]
) -> None:
    rig.ca.certificates.quota.allowance = Allowance(1, 1)
    asked = begun(rig)
    held.lose(is_written=False)
    with pytest.raises(StoreError, match="disk reports errors"):
        result_of(settled(asked))
    assert records(rig) == []
    assert acts(rig) == []
    assert "certificate-signed" not in [event.get("event") for event in logged]
    again = begun(rig)
    held.go_on()
    assert result_of(settled(again)).serial == records(rig)[0].serial


def test_whoever_repeats_it_gets_what_was_recorded_though_nobody_knew(
    rig: CaRig, held: Held
) -> None:
    asked = begun(rig, idempotency_key="once")
    held.lose(is_written=True)
    with pytest.raises(StoreError, match="disk reports errors"):
        result_of(settled(asked))
    (record,) = records(rig)
    assert record.status(NOW) is Status.VALID, "it can be listed and revoked"
    rig.order.clear()
    assert result_of(settled(begun(rig, idempotency_key="once"))).serial == record.serial
    assert "sign" not in rig.order
    result_of(rig.ca.certificates.revoke(ADMIN, record.serial, Reason.SUPERSEDED))


def test_of_two_that_repeat_each_other_one_signs(rig: CaRig, held: Held) -> None:
    asked = [begun(rig, idempotency_key="once") for _ in range(2)]
    assert len(held.waiting) == 1
    held.go_on()
    first, second = (result_of(settled(one)) for one in asked)
    assert first.der == second.der
    assert rig.order.count("sign") == 1


def test_a_caller_who_leaves_meanwhile_may_come_again(rig: CaRig, held: Held) -> None:
    asked = begun(rig, idempotency_key="once")
    asked.cancel()
    with pytest.raises(CancelledError):
        result_of(settled(asked))
    held.go_on()
    (record,) = records(rig)
    assert result_of(settled(begun(rig, idempotency_key="once"))).serial == record.serial
    assert rig.ca.issuance.under_way == set()


def test_an_entry_that_is_deleted_between_signature_and_commit_buys_nothing(
    rig: CaRig, held: Held
) -> None:
    uid = Selector("unix:uid", "77")
    right = entry("a" * 16, str(uid), BACKEND)
    result_of(rig.ca.entries.create(ADMIN, right, ""))
    asked = begun(rig, Principal(Kind.WORKLOAD, str(uid), selectors=frozenset({uid})))
    assert rig.order[-1] == "sign"
    result_of(rig.ca.entries.delete(ADMIN, right.id, ""))
    held.go_on()
    with pytest.raises(EntryGone):
        result_of(settled(asked))
    assert records(rig) == []
    assert Act.ISSUE not in acts(rig)


def test_whoever_is_revoked_between_signature_and_commit_renews_nothing(
    rig: CaRig, held: Held
) -> None:
    first = begun(rig)
    held.go_on()
    serial = result_of(settled(first)).serial
    asked = begun(rig, workload(BACKEND, serial))
    assert len(held.waiting) == 1
    result_of(rig.ca.certificates.revoke(ADMIN, serial, Reason.KEY_COMPROMISE))
    held.go_on()
    with pytest.raises(Revoked, match="revoked meanwhile"):
        result_of(settled(asked))
    assert [record.serial for record in records(rig)] == [serial]


def gone() -> bytes:
    raise SigningFailed("the key is gone")


@pytest.mark.parametrize(
    "breaks", [gone, lambda: b"no signature", lambda: bytes(70)], ids=["raises", "text", "zeros"]
)
def test_a_signature_that_does_not_verify_is_recorded_as_nothing(rig: CaRig, breaks: Any) -> None:
    rig.signer.breaks = breaks
    with pytest.raises(SigningFailed):
        rig.sign()
    assert rig.order == ["sign"]
    assert records(rig) == []
    assert acts(rig) == []


def test_a_store_that_closes_meanwhile_lets_nothing_out(rig: CaRig, held: Held) -> None:
    asked = begun(rig)
    _, answer = held.waiting.pop()
    fail(StoreError("store memory: it is closed")).chainDeferred(answer)
    with pytest.raises(StoreError, match="closed"):
        result_of(settled(asked))
    assert records(rig) == []


def test_what_is_signed_is_what_the_record_says(rig: CaRig) -> None:
    """One command says both what an intent would have, and the certificate."""
    leaf, *_ = rig.sign()
    (told,) = [command for command in rig.store.told if isinstance(command, RecordIssue)]
    assert isinstance(told.intent, RecordIntent)
    assert told.intent.certificate.serial == leaf.serial_number
    assert told.intent.entry.facts["tbs"] == told.intent.digest.hex()
