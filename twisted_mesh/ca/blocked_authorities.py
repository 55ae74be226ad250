"""The CA's own keys, and those of CA certificates that are brought, held against what is blocked."""

from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.codes import Code
from pki.errors import Problem, Refused
from pki.issuing.root_line import fingerprint_of
from pki.keys import key_id
from pki.keys.key_list import KeyList, KeyMarks
from pki.svid.x509svid import subject_of
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.blocked_keys import BlockedKeys
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.records import Conflict

_log = logger("ca")


def own_problem(blocked: BlockedKeys, current: CurrentAuthorities) -> Problem | None:
    """The first of the CA's own keys that is blocked, and what to do; None where none is."""
    for key, name, remedy in _relied_on(current):
        found = blocked.problem(key)
        if found is not None:
            detail = f"{name} of this CA has a key that is blocked: {found.detail}"
            return Problem(Code.BLOCKED_KEY, detail, remedy, found.rule)
    return None


def demand_good_start(blocked: BlockedKeys, current: CurrentAuthorities) -> None:
    """Raises :class:`Refused` where a list has a key of the CA's own."""
    found = own_problem(blocked, current)
    if found is not None:
        remedy = f"start the CA without that list, have it {found.remedy}, and give the list again"
        raise Refused([Problem(found.code, found.detail, remedy, found.rule)])


def take_up(blocked: BlockedKeys, lists: tuple[KeyList, ...], current: CurrentAuthorities) -> str:
    """Have these lists count from now on; what has changed, in words. One with a key of ours is told, and serves."""
    told = blocked.replace_lists(lists)
    if (found := own_problem(blocked, current)) is not None:
        _log.error(
            "{detail}. The CA goes on with it: have it {remedy}",
            event="own-key-blocked",
            detail=found.detail,
            remedy=found.remedy,
        )
    return told


def demand_unblocked(blocked: BlockedKeys, certificates: Iterable[x509.Certificate]) -> None:
    """Raises :class:`Refused` with each of these CA certificates whose key is blocked."""
    found = [
        problem
        for certificate in certificates
        if (problem := blocked.problem(certificate.public_key(), subject=subject_of(certificate)))
    ]
    if found:
        raise Refused(found)


def demand_foreign(current: CurrentAuthorities, key: PublicKeyTypes | str) -> None:
    """Raises :class:`Conflict` for a key, or its SHA-256, that this CA goes on being believed by."""
    number = b"" if isinstance(key, str) else KeyMarks.of(key).number
    named = key if isinstance(key, str) else key_id(key)
    for own, name, remedy in _relied_on(current):
        if named == key_id(own) or (number and number == KeyMarks.of(own).number):
            raise Conflict(f"that is the key of {name} of this CA, which goes on signing: {remedy}")


def _relied_on(current: CurrentAuthorities) -> Iterator[tuple[PublicKeyTypes, str, str]]:
    """The CA's keys that are not revoked, and those above them: whose each is, and how it is got rid of."""
    authorities = current.current
    for root in authorities.roots:
        if not authorities.is_revoked(key_id(root.public_key())):
            way = f"give up that root (mesh-ctl ca root distrust {fingerprint_of(root)})"
            yield root.public_key(), subject_of(root), way
    for issuing in authorities.in_use:
        way = f"give up that issuing CA (mesh-ctl ca revoke-issuing {issuing.key_id})"
        yield issuing.certificate.public_key(), issuing.name, way
        for above in issuing.intermediates:
            if above.public_key() != issuing.certificate.public_key():
                yield (
                    above.public_key(),
                    f"{subject_of(above)}, which stands above {issuing.name},",
                    "have its issuing CA certified by another CA (mesh-ctl ca root csr, and ca root install), and then "
                    f"give up the one of now (mesh-ctl ca revoke-issuing {issuing.key_id})",
                )
    for authority in current.bundle().jwt_authorities:
        way = (
            f"give up that key (mesh-ctl jwt rotate --now, and mesh-ctl jwt retire {authority.kid})"
        )
        yield authority.public_key, f"the JWT key {authority.kid}", way
