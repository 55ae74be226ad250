"""What ``mesh-ca`` does about registration at its start: the file of entries, the default entry."""

import os
from collections.abc import Sequence

from twisted.internet.interfaces import IAddress

from pki.policy.entry import DEFAULT_ENTRY, EntryMembers, RegistrationEntry, read_entry
from pki.spiffe import TrustDomain
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.runtime.log import logger
from twisted_mesh.taps.own_address import is_loopback

_log = logger("ca")


def default_entry(trust_domain: TrustDomain) -> RegistrationEntry:
    """Services of the CA's own user, who could read the CA's key anyway."""
    said = EntryMembers(
        selectors=[f"unix:uid:{os.geteuid()}"],
        spiffe_id=f"spiffe://{trust_domain}/service/**",
        comment="services of the CA's own user; counts while the CA listens on loopback only",
    )
    return read_entry(DEFAULT_ENTRY, trust_domain, said)


async def settle(
    entries: RegistrationEntries,
    trust_domain: TrustDomain,
    addresses: Sequence[IAddress],
    *,
    declined: bool,
    is_lost: bool = False,
) -> None:
    """Have the default entry made at the first start, if it is wanted and harmless; say how it stands.

    ``addresses`` are where the CA listens; ``is_lost`` is a record that is younger than its CA: whether the
    entry was deleted once is not known then. Raises :class:`StoreError`.
    """
    exposed = [address for address in addresses if not is_loopback(address)]
    wanted = not declined and not exposed and not is_lost
    await entries.settle_default(default_entry(trust_domain) if wanted else None)
    if exposed:
        entries.expose()
    selector = f"unix:uid:{os.geteuid()}"
    pattern = f"spiffe://{trust_domain}/service/**"
    by_hand = f"mesh-ctl entry create --selector {selector} --spiffe-id '{pattern}'"
    if entries.is_effortless:
        _log.info(
            "Default entry: every process of the CA's own user ({selector}) may have {pattern}; mesh-ctl entry "
            "delete {entry} ends that",
            event="default-entry",
            selector=selector,
            pattern=pattern,
            entry=DEFAULT_ENTRY,
        )
        if declined:
            _log.warn(
                "--no-default-entry came too late: the default entry was made at an earlier start; mesh-ctl entry "
                "delete {entry} ends it",
                event="default-entry-stands",
                entry=DEFAULT_ENTRY,
            )
    elif entries.is_known(DEFAULT_ENTRY):
        _log.warn(
            "The default entry does not count, since the CA listens beyond loopback: services of the CA's own user "
            "need an entry, as all others do ({by_hand})",
            event="default-entry-refused",
            by_hand=by_hand,
        )
    elif not entries.all():
        _log.info(
            "No registration entry lets anybody have a certificate yet: make one, like {by_hand}, or a join token "
            "(mesh-ctl token create)",
            event="no-entries",
            by_hand=by_hand,
        )
