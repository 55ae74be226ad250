"""What is held of each federated trust domain, and that no root is held for two."""

from collections.abc import Callable

from attrs import define, evolve, field, frozen
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.errors import Problem, printable
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federation import apart, root_keys
from pki.svid.x509svid import subject_of

_TELL_THEM = "tell the peer's operator; what was issued under that key is refused"


@frozen
class _Held:
    bundle: TrustBundle
    keys: frozenset[str]
    """Of its roots."""
    is_too_old: bool = False


@define(eq=False, repr=False)
class Holdings:
    """The bundles of many trust domains, each by itself: without roots that are our own or were another's before."""

    own: Callable[[], TrustBundle]
    """Our own bundle of the moment."""
    blocked: Callable[[PublicKeyTypes], Problem | None] = lambda key: None
    """Why a key is nobody's any more: others may have its private half."""
    _held: dict[TrustDomain, _Held] = field(factory=dict, init=False)
    _holders: dict[str, TrustDomain] = field(factory=dict, init=False)
    """Whose roots those keys are."""

    def hold(self, published: TrustBundle, *, is_too_old: bool = False) -> tuple[Problem, ...]:
        """Hold it in place of its trust domain's; which keys of it are not held, and why.

        Raises :class:`~pki.svid.federated_document.ForeignRoot`, and holds then what it held.
        """
        domain = published.trust_domain
        bundle, foreign = apart(published, root_keys(self.own()), self._holders)
        bundle, stolen = self._unblocked(bundle)
        self.release(domain)
        held = self._held[domain] = _Held(bundle, root_keys(bundle), is_too_old)
        self._holders |= dict.fromkeys(held.keys, domain)
        return *foreign, *stolen

    def _unblocked(self, bundle: TrustBundle) -> tuple[TrustBundle, tuple[Problem, ...]]:
        problems: list[Problem] = []

        def is_good(key: PublicKeyTypes, name: str) -> bool:
            found = self.blocked(key)
            if found is not None:
                detail = f"{name} in the bundle of {bundle.trust_domain} has a key that is blocked: {found.detail}"
                problems.append(Problem(found.code, detail, _TELL_THEM, found.rule, found.subject))
            return found is None

        roots = [root for root in bundle.roots if is_good(root.public_key(), subject_of(root))]
        jwt = [
            a
            for a in bundle.jwt_authorities
            if is_good(a.public_key, f"the JWT key {printable(a.kid, 80)}")
        ]
        if problems:
            bundle = evolve(bundle, roots=tuple(roots), jwt_authorities=tuple(jwt))
        return bundle, tuple(problems)

    def release(self, trust_domain: TrustDomain) -> None:
        """Hold nothing of it: its roots may be somebody else's from now on."""
        held = self._held.pop(trust_domain, None)
        for key in held.keys if held else ():
            del self._holders[key]

    def outdate(self, trust_domain: TrustDomain) -> None:
        """What is held of it is too old to be believed, until another comes."""
        held = self._held[trust_domain]
        self._held[trust_domain] = _Held(held.bundle, held.keys, is_too_old=True)

    def latest(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """What is held, however old; our own too."""
        own = self.own()
        if trust_domain == own.trust_domain:
            return own
        held = self._held.get(trust_domain)
        return None if held is None else held.bundle

    def believed(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """What is held and not too old, of a federated trust domain."""
        held = self._held.get(trust_domain)
        return None if held is None or held.is_too_old else held.bundle

    @property
    def all_believed(self) -> BundleSet:
        """The same, of all of them."""
        return BundleSet.of(*(held.bundle for held in self._held.values() if not held.is_too_old))
