"""A SPIFFE bundle as another trust domain publishes it: a bad key loses that key, and not the rest.

SPIFFE Trust Domain and Bundle, section 4; X509-SVID, section 6.2; JWT-SVID, section 6. What cannot be used is passed
over and told. Where that is every key for X.509, nobody is believed: what the document does not have any more is not
believed any more, whatever stands in its place.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import NoReturn

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, discreet, printable
from pki.jwt_svid.jwks import JWT_SVID, JwtAuthority, authorities_of
from pki.keys import weaknesses
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.svid.bundle import X509_SVID, BadBundle, TrustBundle, announced_pins, root_of_jwk
from pki.svid.x509svid import issuer_of, subject_of, uri_names

#: Bytes of a document. A root of an RSA key takes 3 kB.
LARGEST_DOCUMENT = 1024 * 1024
#: Roots of one trust domain. All of them are tried for each of its certificates.
MOST_ROOTS = 100
_MOST_KEYS = 1000
#: Of those that are passed over so many are told one by one.
_MOST_TOLD = 20
#: The largest number that every implementation can hold (section 4.1.1).
_LARGEST_SEQUENCE = 2**63 - 1


class ForeignRoot(BadBundle):
    """A root in the document says itself that it is another trust domain's."""

    code = Code.FOREIGN_ROOT


@frozen
class FederatedDocument:
    """What was published, and what of it is not believed."""

    bundle: TrustBundle
    passed_over: tuple[Problem, ...] = ()
    """Keys that cannot be used, and why; after some only how many more there are."""

    @classmethod
    def parse(cls, trust_domain: TrustDomain, document: bytes) -> "FederatedDocument":
        """The bundle of that trust domain, which the document does not name.

        Raises :class:`~pki.svid.bundle.BadBundle` where it is none as a whole, and :class:`ForeignRoot` where a root in
        it names another trust domain. Keys of an unknown use are none of ours: they are not even told.
        """
        found, keys = _read(document)
        problems: list[Problem] = []
        roots = tuple(dict.fromkeys(_roots(trust_domain, keys, problems)))
        authorities = _authorities(keys, problems)
        if len(problems) > _MOST_TOLD:
            rest = len(problems) - _MOST_TOLD
            problems[_MOST_TOLD:] = [_bad_key(f"{rest} more keys of the bundle cannot be used")]
        bundle = TrustBundle(
            trust_domain,
            roots,
            _whole_number(found, "spiffe_sequence") or 0,
            _whole_number(found, "spiffe_refresh_hint"),
            authorities,
            announced_pins(found.get("mesh_next_keys")),
        )
        return cls(bundle, tuple(problems))


class _Twice:
    """Stands for a JSON object in which a member appears twice: which of them is meant nobody knows."""


def _unique(pairs: list[tuple[str, object]]) -> object:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _read(document: bytes) -> tuple[dict[str, object], list[object]]:
    """The document, and its keys. Raises :class:`BadBundle`."""
    if len(document) > LARGEST_DOCUMENT:
        raise BadBundle(f"the SPIFFE bundle has over {LARGEST_DOCUMENT} bytes")
    try:
        found = _JSON.decode(document.decode("utf-8"))
    except (ValueError, RecursionError):
        begin = discreet(document[:40].decode("utf-8", "replace"), 40)
        raise BadBundle(
            f"it is no SPIFFE bundle, which is JSON in UTF-8; it begins {begin!r}"
        ) from None
    if isinstance(found, _Twice):
        raise BadBundle("a member appears twice in the SPIFFE bundle: nobody knows which is meant")
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise BadBundle("a SPIFFE bundle is a JSON object with a list of keys (RFC 7517 section 5)")
    keys: list[object] = found["keys"]
    if len(keys) > _MOST_KEYS:
        raise BadBundle(f"the SPIFFE bundle has {len(keys)} keys, {_MOST_KEYS} is the most")
    return found, keys


def _whole_number(found: dict[str, object], name: str) -> int | None:
    """The member of that name; None where it is not there, or null, as others write that. Raises :class:`BadBundle`."""
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadBundle(f"{name} is not a whole number")
    if value > _LARGEST_SEQUENCE:
        raise BadBundle(f"{name} is larger than 64 bits can hold: most could not read it")
    return value


def _roots(
    trust_domain: TrustDomain, keys: list[object], problems: list[Problem]
) -> Iterator[x509.Certificate]:
    meant = [
        (at, key)
        for at, key in enumerate(keys)
        if isinstance(key, _Twice) or (isinstance(key, dict) and key.get("use") == X509_SVID)
    ]
    if len(meant) > MOST_ROOTS:
        raise BadBundle(
            f"the SPIFFE bundle has {len(meant)} keys for X.509, {MOST_ROOTS} is the most"
        )
    for at, key in meant:
        root = None if isinstance(key, _Twice) else root_of_jwk(_with_first_only(key))
        if root is None:
            problems.append(
                _bad_key(f"key {at + 1} of the bundle, for X.509, holds no usable root")
            )
            continue
        try:
            refuse_foreign(trust_domain, root)
            is_root = root.issuer == root.subject
            weak = weaknesses(root.public_key())
        except HOSTILE_INPUT:
            problems.append(
                _bad_key(f"key {at + 1} of the bundle has a root with unreadable names")
            )
            continue
        if not is_root:
            # It may be (X509-SVID section 6.1), and OpenSSL ends no chain there.
            said = f"key {at + 1} of the bundle has {subject_of(root)}, which {issuer_of(root)} has certified"
            problems.append(_bad_key(f"{said}: roots are believed that have signed themselves"))
            continue
        if weak:
            said = f"key {at + 1} of the bundle has {subject_of(root)}, whose key anybody may have"
            problems.append(_bad_key(f"{said}: {weak[0].detail}"))
            continue
        yield root


def _with_first_only(key: dict[str, object]) -> dict[str, object]:
    """Of several certificates all but the first are ignored (X509-SVID section 6.2)."""
    chain = key.get("x5c")
    return {**key, "x5c": chain[:1]} if isinstance(chain, list) else key


def refuse_foreign(trust_domain: TrustDomain, root: x509.Certificate) -> None:
    """Raises :class:`ForeignRoot` for one that names another trust domain, and else what hostile DER raises."""
    for uri in uri_names(root):
        try:
            named = SpiffeId.parse(uri).trust_domain
        except NotASpiffeId:
            continue  # a name of another kind says nothing of whose it is
        if named != trust_domain:
            raise ForeignRoot(
                f"the bundle of {trust_domain} has the root {subject_of(root)}, which says that it is {named}'s: it is "
                "another trust domain's bundle, or whoever has it mixes them up"
            )


def _authorities(keys: list[object], problems: list[Problem]) -> tuple[JwtAuthority, ...]:
    meant = [
        (at, key)
        for at, key in enumerate(keys)
        if isinstance(key, dict) and key.get("use") == JWT_SVID
    ]
    found: list[JwtAuthority] = []
    for at, key in meant:
        read = authorities_of((key,))
        if not read:
            problems.append(_bad_key(f"key {at + 1} of the bundle, for JWT, holds no usable key"))
        found += read
    names = Counter(authority.kid for authority in dict.fromkeys(found))
    problems += (
        _bad_key(f"{count} keys for JWT have the name {printable(kid, 80)!r}: none is believed")
        for kid, count in names.items()
        if count > 1
    )
    return tuple(authority for authority in dict.fromkeys(found) if names[authority.kid] == 1)


def _bad_key(detail: str) -> Problem:
    return Problem(
        Code.BAD_BUNDLE_KEY,
        detail,
        "tell the peer's operator; what was issued under that key is refused",
        "SPIFFE Trust Domain and Bundle section 4.2",
        "bundle",
    )
