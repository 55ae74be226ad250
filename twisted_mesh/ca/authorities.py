"""The CA's own certificates and keys, and who of them issues at this moment."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Self

from attrs import Factory, define, evolve, field, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.issuing.publication import Publication
from pki.issuing.root_line import RootLine, fingerprint_of
from pki.issuing.rotation import Line, Term
from pki.keys import KeptKey, key_id, spki_der, spki_pin
from pki.policy.lifetimes import Lifetimes
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.published_trust import JwtPublished, Published
from twisted_mesh.ca.revoked_authorities import RevokedAuthority

#: How often those who poll the bundle are to do so, in seconds.
REFRESH_HINT = 300


class IssuerRevoked(PkiError):
    """The issuing CA is revoked, and there is no other yet (HTTP 503)."""

    code = Code.ISSUER_REVOKED


@frozen
class Authorities:
    """The roots, with their keys if they are here, and the issuing CAs below them. Replaced whole."""

    root: x509.Certificate
    """The one that chains lead to, and that whoever joins compares with: ``root_line.served``."""
    root_key: KeptKey | None
    """Its key, if it is here."""
    issuing: Authority
    """The active one: it issues. As all of them it is there by its certificate below :attr:`root`, if it has one."""
    prepared: Authority | None = None
    """The next one."""
    retired: tuple[Authority, ...] = ()
    """Those that answer for what they issued, the latest generation first."""
    root_line: RootLine = field(
        default=Factory(lambda self: RootLine(self.root), takes_self=True), kw_only=True
    )
    """All roots, and how far their rotation is."""
    other_root_key: KeptKey | None = field(default=None, kw_only=True)
    """The key of the root that is believed besides, if there is one and its key is here."""
    revoked: tuple[RevokedAuthority, ...] = field(default=(), kw_only=True)
    """CA certificates that nobody is to rely on. The active one's may be among them, until there is a successor."""

    def __attrs_post_init__(self) -> None:
        if self.root_line.served != self.root:
            raise AssertionError("chains lead to the root that is served")

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """All that are believed, the served one first."""
        return self.root_line.roots

    def key_of(self, root: x509.Certificate) -> KeptKey | None:
        """The key of one of the roots; None while it is not here."""
        return self.root_key if root == self.root else self.other_root_key

    @property
    def root_keys(self) -> Mapping[str, KeptKey]:
        """Those that are here, by the roots' key ids."""
        found = ((root, self.key_of(root)) for root in self.roots)
        return {key_id(root.public_key()): key for root, key in found if key is not None}

    @property
    def known_roots(self) -> frozenset[str]:
        """The key ids of all roots that there are and were: by each of them this CA is known to be itself."""
        present = {key_id(root.public_key()) for root in self.roots}
        return frozenset(present | {root.key_id for root in self.root_line.former})

    @property
    def key_ids(self) -> frozenset[str]:
        """Those of all CAs' keys: no other CA is made with one of them."""
        roots = (key_id(root.public_key()) for root in self.roots)
        return frozenset((*roots, *(ca.key_id for ca in self.every_issuing), *self._revoked_keys))

    def certificates_of(self, authority: Authority) -> tuple[x509.Certificate, ...]:
        """Every certificate of that issuing CA's key, the one that is served first."""
        both = self.root_line.certificates_of(spki_der(authority.certificate.public_key()))
        return tuple(dict.fromkeys((authority.certificate, *both)))

    def rests_on(self, authority: Authority, root: x509.Certificate) -> bool:
        """Whether that root has certified that issuing CA."""
        found = self.certificates_of(authority)
        return any(self.root_line.root_of(certificate) == root for certificate in found)

    def along(self, line: RootLine, more: Mapping[str, KeptKey] | None = None) -> Self:
        """The same by another line of roots: each issuing CA by its certificate below the root that is served then.

        ``more`` are keys of roots that were not there before, by key id.
        """
        keys = {**self.root_keys, **(more or {})}

        def below(authority: Authority) -> Authority:
            for certificate in (
                *line.certificates_of(spki_der(authority.certificate.public_key())),
            ):
                if (
                    line.root_of(certificate) == line.served
                    and certificate != authority.certificate
                ):
                    chain = line.chain_of(certificate)
                    return evolve(authority, certificate=certificate, intermediates=chain)
            return authority

        other = line.other
        return evolve(
            self,
            root=line.served,
            root_key=keys.get(key_id(line.served.public_key())),
            issuing=below(self.issuing),
            prepared=below(self.prepared) if self.prepared is not None else None,
            retired=tuple(map(below, self.retired)),
            root_line=line,
            other_root_key=keys.get(key_id(other.public_key())) if other is not None else None,
        )

    def with_root_keys(self, keys: Mapping[str, KeptKey]) -> Self:
        """The same with these keys of roots, by key id, and no other."""
        other = self.root_line.other
        return evolve(
            self,
            root_key=keys.get(key_id(self.root.public_key())),
            other_root_key=keys.get(key_id(other.public_key())) if other is not None else None,
        )

    @property
    def next_pins(self) -> tuple[str, ...]:
        """The pins (``sha256/BASE64``) of keys that are not in use yet: of the next issuing CA and the next root."""
        line, pins = self.root_line, []
        if self.prepared is not None:
            pins.append(spki_pin(self.prepared.certificate.public_key()))
        elif line.announced and line.announced != spki_pin(self.issuing.certificate.public_key()):
            pins.append(line.announced)
        if line.new is not None and line.served != line.new:
            pins.append(spki_pin(line.new.public_key()))
        return tuple(pins)

    @property
    def fingerprint(self) -> str:
        """Of the root: what a caller pins."""
        return fingerprint_of(self.root)

    def issuer(self, key_id: str) -> Authority | None:
        """The issuing CA whose key has that id."""
        return next((found for found in self.every_issuing if found.key_id == key_id), None)

    @property
    def every_issuing(self) -> tuple[Authority, ...]:
        """The active one, the prepared one, and those that are retired."""
        return (self.issuing, *((self.prepared,) if self.prepared else ()), *self.retired)

    @property
    def in_use(self) -> tuple[Authority, ...]:
        """Those that may sign something: all but one that is revoked and has no successor yet."""
        return tuple(ca for ca in self.every_issuing if not self.is_revoked(ca.key_id))

    def is_revoked(self, key_id: str) -> bool:
        """Whether nobody is to rely on that key any more."""
        return key_id in self._revoked_keys

    @cached_property
    def _revoked_keys(self) -> frozenset[str]:
        return frozenset(row.key_id for row in self.revoked)

    @property
    def is_parting(self) -> bool:
        """Whether a root is still in the bundle that is distrusted."""
        return any(row.is_root and row.certificate in self.roots for row in self.revoked)

    def demand_in_use(self, issuer: Authority) -> None:
        """Raises :class:`IssuerRevoked` for one whose key is to sign nothing any more."""
        if self.is_revoked(issuer.key_id):
            raise IssuerRevoked(
                f"{issuer.name} is revoked and has no successor: nothing is signed until the root's key is here, which "
                "makes one"
            )

    @property
    def line(self) -> Line:
        """What rotation is decided by."""
        return Line(
            Term.of(self.issuing.certificate),
            Term.of(self.prepared.certificate) if self.prepared else None,
            tuple(Term.of(authority.certificate) for authority in self.retired),
            is_revoked=self.is_revoked(self.issuing.key_id),
        )

    def forbidden_keys(self) -> frozenset[bytes]:
        """The CAs' own public keys: no workload may have them certified."""
        return self._public_keys

    @cached_property
    def _public_keys(self) -> frozenset[bytes]:
        certificates = (
            *self.roots,
            *(ca.certificate for ca in self.every_issuing),
            *(row.certificate for row in self.revoked),
        )
        return frozenset(spki_der(certificate.public_key()) for certificate in certificates)

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        """What members of that trust domain are believed by: the roots."""
        return TrustBundle(
            trust_domain,
            self.roots,
            sequence=1 + self.root_line.sequence,
            refresh_hint=REFRESH_HINT,
            next_keys=self.next_pins,
        )

    def with_issuing(self, active: Authority, others: tuple[Authority, ...]) -> Self:
        """The latest of ``others`` is the prepared one, if it is later than ``active``; the rest is retired.

        Those of them that are revoked are none any more.
        """
        good = (ca for ca in others if not self.is_revoked(ca.key_id))
        others = tuple(sorted(good, key=_generation, reverse=True))
        if others and _generation(others[0]) > _generation(active):
            return evolve(self, issuing=active, prepared=others[0], retired=others[1:])
        return evolve(self, issuing=active, prepared=None, retired=others)

    def with_prepared(self, prepared: Authority) -> Self:
        """The same, with the next one; one that was prepared before is retired."""
        return self.with_issuing(self.issuing, (prepared, *self.every_issuing[1:]))

    def with_active(self, active: Authority) -> Self:
        """The same, with ``active``, which is one of them, in the place of the one that issued."""
        return self.with_issuing(active, tuple(ca for ca in self.every_issuing if ca is not active))

    def with_revoked(self, rows: tuple[RevokedAuthority, ...]) -> Self:
        """The same, with these as all that are revoked."""
        return evolve(self, revoked=rows).with_issuing(self.issuing, self.every_issuing[1:])

    def without(self, forgotten: Authority) -> Self:
        """The same, without one that does not issue."""
        return self.with_issuing(
            self.issuing, tuple(ca for ca in self.every_issuing[1:] if ca is not forgotten)
        )


@define(eq=False, repr=False)
class CurrentAuthorities:
    """Who issues at this moment, for how long at most, and where certificates say that things are published."""

    trust_domain: TrustDomain
    lifetimes: Lifetimes
    """Of the certificates that are issued for callers."""
    current: Authorities
    notifier: Notifier | None = None
    """Wakes whoever waits for something else to be published."""
    refresh_hint: int = REFRESH_HINT
    """Seconds after which whoever polls the bundle is to ask for it again."""
    withdrawn_logs: frozenset[str] = frozenset()
    """See :class:`Published`."""
    _published_at: str | None = field(default=None, init=False)
    _jwt: JwtPublished = field(factory=JwtPublished, init=False)
    _bundle: TrustBundle = field(init=False)
    _told: Published = field(factory=Published, init=False)
    _watchers: list[Callable[[Published], None]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._issue_by(self.current)

    def adopt(self, authorities: Authorities) -> None:
        """From now on ``authorities.issuing`` issues."""
        before = self._told
        self._issue_by(authorities)
        if self._told is before:
            return
        if self.notifier is not None:
            self.notifier.announce()
        for changed in tuple(self._watchers):
            changed(self._told)

    def watch(self, changed: Callable[[Published], None]) -> None:
        """Have ``changed`` called at once with whatever is published anew."""
        self._watchers.append(changed)

    def publish_at(self, base: str) -> None:
        """From now on certificates say that what is published of their issuer is found below ``base``."""
        self._published_at = base
        self.adopt(self.current)

    def publish_jwt(self, published: JwtPublished) -> None:
        """From now on these keys verify the tokens of the trust domain."""
        self._jwt = published
        self.adopt(self.current)

    def bundle(self) -> TrustBundle:
        """What members of the trust domain are believed by."""
        return self._bundle

    def bundles(self) -> BundleSet:
        """The same, as all that is believed here."""
        return self._told.bundles

    def all_revoked(self) -> tuple[RevokedAuthority, ...]:
        """CA certificates that nobody is to rely on."""
        return self.current.revoked

    @property
    def published(self) -> Published:
        """What is told of whom to believe: another object whenever it says something else."""
        return self._told

    def _issue_by(self, authorities: Authorities) -> None:
        self.current = self._issuing_ours(authorities)
        self._bundle = evolve(
            self.current.bundle(self.trust_domain),
            sequence=self._jwt.sequence + self.current.root_line.sequence,
            refresh_hint=self.refresh_hint,
            jwt_authorities=self._jwt.authorities,
        )
        told = Published(
            BundleSet.of(self._bundle),
            {ca.key_id: ca.intermediates for ca in self.current.in_use},
            tuple(row.revocation for row in self.current.revoked),
            frozenset(root.pin for root in self.current.root_line.former)
            | {row.pin for row in self.current.revoked},
            self.withdrawn_logs,
        )
        if told != self._told:
            self._told = told

    def _issuing_ours(self, authorities: Authorities) -> Authorities:
        """The same, with an active one that issues SVIDs as they are settled here."""
        issuing = authorities.issuing
        workload = evolve(
            issuing.workload,
            lifetime=self.lifetimes.maximum,
            publication=self._publication(issuing),
        )
        if issuing.workload == workload:
            return authorities
        return evolve(authorities, issuing=evolve(issuing, workload=workload))

    def _publication(self, issuing: Authority) -> Publication | None:
        base = self._published_at
        if base is None:
            return None
        # Each names its issuer: after a succession there are several.
        return Publication(
            f"{base}/crl/{issuing.key_id}", f"{base}/ocsp", f"{base}/issuer/{issuing.key_id}"
        )


def _generation(authority: Authority) -> int:
    return Term.of(authority.certificate).generation
