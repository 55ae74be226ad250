"""What is left of a root that is distrusted: whether any certificate would bring its key back to life.

Whoever holds that key can sign whatever it likes, and is believed only if a root that is believed, or a CA below
one, has certified the very same key. An issuing CA's key that the distrusted root has certified *as well* is another
matter: who has the root's key has not that one, and what the root says of it leads to nobody who is believed.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

from attrs import frozen
from cryptography import x509

from pki.keys import spki_der
from pki.svid.path import signed_by


class Remains(StrEnum):
    """What a certificate means once a root is distrusted."""

    REVIVES = "revives"
    """It certifies the distrusted key, and leads to a root that is believed: whoever has the key is believed again."""
    SURVIVES = "survives"
    """It leads to a root that is believed, over a key that the distrusted root has certified too: that is fine."""
    DEAD = "dead"
    """It leads to the distrusted root, which nobody believes."""


@frozen
class Remnant:
    """One CA certificate, and what it means."""

    where: str
    """For people: a file, the record."""
    certificate: x509.Certificate
    remains: Remains


def examine(
    distrusted: x509.Certificate,
    believed: Sequence[x509.Certificate],
    found: Iterable[tuple[str, x509.Certificate]],
) -> tuple[Remnant, ...]:
    """Of all the certificates ``found``, by where they are, those that have to do with the distrusted root.

    ``believed`` are the roots that are.
    """
    known = list(dict.fromkeys(found))
    live = _live(believed, [certificate for _, certificate in known])
    lost = spki_der(distrusted.public_key())
    certified = {
        spki_der(certificate.public_key())
        for _, certificate in known
        if certificate != distrusted and signed_by(certificate, distrusted)
    }
    remnants = []
    for where, certificate in known:
        key = spki_der(certificate.public_key())
        if certificate in live and key == lost:
            remnants.append(Remnant(where, certificate, Remains.REVIVES))
        elif certificate in live and key in certified and certificate not in believed:
            remnants.append(Remnant(where, certificate, Remains.SURVIVES))
        elif certificate not in live and (
            certificate == distrusted or signed_by(certificate, distrusted)
        ):
            remnants.append(Remnant(where, certificate, Remains.DEAD))
    return tuple(remnants)


def _live(
    believed: Sequence[x509.Certificate], known: Sequence[x509.Certificate]
) -> set[x509.Certificate]:
    """Those that lead to a believed root, however long the way."""
    live = set(believed)
    fresh = list(live)
    while fresh:
        below = [
            one for one in known if one not in live and any(signed_by(one, up) for up in fresh)
        ]
        live.update(below)
        fresh = below
    return live
