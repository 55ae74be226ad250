"""A CA in this process that publishes, and what tests read of that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from cryptography import x509

from pki.crl.crl import Crl, read_crl
from pki.svid.revocation_set import Reason
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, ca_rig, result_of
from twisted_mesh.ca.revocation.crl import PublishedCrl
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.interfaces import IRevocationListener


async def at_once(work: Callable[..., Any], *arguments: Any) -> Any:
    """In the place of a thread."""
    return work(*arguments)


@contextmanager
def publishing_rig(**settings: Any) -> Iterator[CaRig]:
    with ca_rig(**settings) as rig:
        rig.ca.publisher.aside = at_once
        rig.ca.publisher.begin()
        result_of(rig.ca.publisher.attend())
        rig.order.clear()
        yield rig


def with_root_key(rig: CaRig) -> None:
    """Bring the root's key."""
    root_key: Any = rig.home.root.key
    rig.ca.current.adopt(evolve(rig.ca.authorities, root_key=root_key))


def without_root_key(rig: CaRig) -> None:
    rig.ca.current.adopt(evolve(rig.ca.authorities, root_key=None))


def reborn(rig: CaRig, earlier: IRevocationListener | None = None) -> CrlPublisher:
    """What publishes after a restart, on the same record."""
    new = CrlPublisher(rig.ca.current, rig.store, rig.log, rig.now, rig.directory, earlier, at_once)
    rig.assemble(rig.ca.own, new)
    new.begin()
    return new


def served(rig: CaRig, issuer: str | None = None) -> PublishedCrl:
    return result_of(rig.ca.publisher.crl(issuer or rig.ca.authorities.issuing.key_id))  # type: ignore[no-any-return]


def relied_on(rig: CaRig, found: PublishedCrl, issuer: x509.Certificate | None = None) -> Crl:
    """What a CRL says, to somebody who looks at it closely."""
    issuer = issuer or rig.ca.authorities.issuing.certificate
    crl = read_crl(found.der, issuer, now=rig.time)
    assert (crl.number, len(crl), crl.issuer) == (found.number, found.entries, found.issuer)
    assert (crl.this_update, crl.next_update) == (found.span.this_update, found.span.next_update)
    return crl


def listed(rig: CaRig, found: PublishedCrl | None = None) -> set[int]:
    return {revocation.serial for revocation in relied_on(rig, found or served(rig))}


def revoke(rig: CaRig, serial: int, reason: Reason = Reason.SUPERSEDED) -> None:
    result_of(rig.ca.certificates.revoke(ADMIN, serial, reason))


def revoked(rig: CaRig, ttl: timedelta | None = None) -> int:
    """The serial of one more certificate that is issued and revoked."""
    leaf, *_ = rig.sign(ttl=ttl)
    revoke(rig, leaf.serial_number)
    return int(leaf.serial_number)


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
