"""What one caller may have, by the names under which Envoy asks for it."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from hashlib import sha256
from typing import Self

from attrs import field, frozen

from pki.errors import printable
from pki.spiffe import TrustDomain
from twisted_mesh.workload.interface import Bundles, Snapshot, WorkloadSvid
from twisted_mesh.workload.sds_messages import Content, Secret

#: The first of the caller's identities.
DEFAULT_SVID = "default"
#: The bundle of the caller's own trust domain.
OWN_BUNDLE = "ROOTCA"
#: The bundles of all trust domains that the caller may believe.
ALL_BUNDLES = "ALL"
_LINE = 64
_SHOWN = 8


@frozen
class Offer:
    """The secrets of one :class:`Snapshot`; each is made when it is asked for."""

    _makers: Mapping[str, Callable[[str], Secret]] = field(factory=dict, repr=False)
    names: tuple[str, ...] = ()
    """What all of it is: each identity by its ID, each bundle by its trust domain's ID. Other names are aliases."""
    is_whole: bool = False
    """Whether what is not there is known not to be there; else it may only not be there yet."""
    _made: dict[str, Secret] = field(factory=dict, init=False, repr=False, eq=False)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """What is known at that moment."""
        makers: dict[str, Callable[[str], Secret]] = {}
        for svid in snapshot.svids:
            makers.setdefault(str(svid.svid.spiffe_id), partial(_identity, svid))
        bundles = {} if snapshot.bundles is None else _all_of(snapshot.bundles)
        for trust_domain, pem in bundles.items():
            makers[str(trust_domain.id)] = partial(_validation, {trust_domain: pem})
        names = tuple(makers)
        for trust_domain, pem in bundles.items():
            makers[str(trust_domain)] = partial(_validation, {trust_domain: pem})
        if snapshot.svids:
            makers[DEFAULT_SVID] = partial(_identity, snapshot.svids[0])
        if bundles:
            makers[ALL_BUNDLES] = partial(_validation, bundles)
        if snapshot.bundles is not None and snapshot.bundles.own in bundles:
            own = snapshot.bundles.own
            makers[OWN_BUNDLE] = partial(_validation, {own: bundles[own]})
        is_whole = snapshot.bundles is not None and snapshot.refusal is None
        return cls(makers, names, is_whole)

    def get(self, name: str) -> Secret | None:
        """The secret of that name; None where there is none."""
        if name not in self._made and name in self._makers:
            self._made[name] = self._makers[name](name)
        return self._made.get(name)

    def __str__(self) -> str:
        """The names, for people; of very many the first."""
        shown = [printable(name, 200) for name in self.names[:_SHOWN]]
        more = len(self.names) - len(shown)
        if more > 0:
            shown.append(f"{more} more")
        return ", ".join(shown) or "nothing"


def _identity(found: WorkloadSvid, name: str) -> Secret:
    chain = found.svid.chain_pem()
    content = Content(name, chain, found.svid.key.to_pem())
    return Secret(name, _version(name, chain), content.encode())


def _validation(bundles: Mapping[TrustDomain, bytes], name: str) -> Secret:
    content = Content(name, bundles={str(each): pem for each, pem in sorted(bundles.items())})
    data = content.encode()
    return Secret(name, _version(name, data), data)


def _version(name: str, public: bytes) -> str:
    """The same in every run, so that a client that comes again need not be told again what it has."""
    return sha256(name.encode() + b"\0" + public).hexdigest()[:16]


def _all_of(bundles: Bundles) -> dict[TrustDomain, bytes]:
    """Of each trust domain with roots its bundle. Envoy refuses one without a root, and all others with it."""
    return {
        each.trust_domain: each.to_pem()
        + b"".join(map(_crl_pem, bundles.crls.get(each.trust_domain, ())))
        for each in bundles.x509
        if each.roots
    }


@lru_cache(maxsize=64)
def _crl_pem(der: bytes) -> bytes:
    """Kept: each stream of this machine is told the same ones."""
    text = b64encode(der)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return b"\n".join((b"-----BEGIN X509 CRL-----", *lines, b"-----END X509 CRL-----", b""))
