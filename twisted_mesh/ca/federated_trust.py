"""Who is told of which federated trust domain: whoever an entry lets in that federates with it, and nobody else.

An administrator is no exception: it is given what the entries say that it meets, and by the plaintext port it meets
none.
"""

from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field

from pki.policy.entry import RegistrationEntry
from pki.policy.principal import Principal
from pki.spiffe import SpiffeId, TrustDomain
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.federation import Federations
from twisted_mesh.ca.published_trust import Published
from twisted_mesh.stores.interface import IStore

_NONE: frozenset[TrustDomain] = frozenset()
#: Certificates of which is remembered which entry has bought them. That never changes.
_MOST_REMEMBERED = 20_000


@define(eq=False, repr=False)
class FederatedTrust:
    """What each caller is told of whom to believe."""

    current: CurrentAuthorities
    entries: RegistrationEntries
    store: IStore
    federations: Federations
    _told: dict[frozenset[TrustDomain], Published] = field(factory=dict, init=False)
    """What was made of :attr:`_base`, by the trust domains that are in it besides."""
    _base: Published | None = field(default=None, init=False)
    _federating: dict[str, RegistrationEntry] = field(factory=dict, init=False)
    """The entries that count and federate with anybody, by id."""
    _entry_of: "OrderedDict[int, str | None]" = field(factory=OrderedDict, init=False)

    def __attrs_post_init__(self) -> None:
        self.federations.watch(self.renew)
        _ = self.entries.watch(self._entries_changed)
        self._entries_changed()

    def renew(self) -> None:
        """Something else is to be handed out than before: whoever waits for news looks again."""
        self._told.clear()
        if self.current.notifier is not None:
            self.current.notifier.announce()

    async def told_to(self, principal: Principal) -> Callable[[], Published]:
        """What ``principal`` is told, asked at any later moment too. Raises :class:`StoreError`."""
        serial, agent = principal.serial, principal.spiffe_id
        if serial is None:
            return lambda: self._published(self._of_selectors(principal))
        if agent is not None and agent.agent is not None:
            return lambda: self._published(self._of_agent(agent))
        # An entry never changes: where none federates with anybody, the one that bought this will not either.
        entry_id = await self._bought(serial) if self._federating else None
        return lambda: self._published(self._of_entry(entry_id))

    def _of_selectors(self, principal: Principal) -> frozenset[TrustDomain]:
        """By every entry that lets in whoever has these."""
        if not self._federating:
            return _NONE
        met = (
            entry
            for entry in self.entries.candidates(principal)
            if entry.is_met_by(principal.selectors)
        )
        return frozenset(domain for entry in met for domain in entry.federates_with)

    def _of_agent(self, agent: SpiffeId) -> frozenset[TrustDomain]:
        """What the workloads of its machine are to believe."""
        children = self.entries.of_parent(agent)
        return frozenset(domain for entry in children for domain in entry.federates_with)

    def _of_entry(self, entry_id: str | None) -> frozenset[TrustDomain]:
        """By the entry that bought the certificate, as long as there is one."""
        entry = None if entry_id is None else self._federating.get(entry_id)
        return _NONE if entry is None else frozenset(entry.federates_with)

    def _published(self, domains: frozenset[TrustDomain]) -> Published:
        base = self.current.published
        if base is not self._base:
            self._base = base
            self._told.clear()
        if not domains:
            return base
        told = self._told.get(domains)
        if told is None:
            believed = self.federations.believed()
            found = [bundle for bundle in believed if bundle.trust_domain in domains]
            revocations = self.federations.crls.revocations([b.trust_domain for b in found])
            told = self._told[domains] = base.federated(found, revocations)
        return told

    async def _bought(self, serial: int) -> str | None:
        """The entry that bought a certificate; None where none did."""
        if serial not in self._entry_of:
            found = await self.store.find_all([serial])
            self._entry_of[serial] = found[0].entry if found else None
            while len(self._entry_of) > _MOST_REMEMBERED:
                self._entry_of.popitem(last=False)
        return self._entry_of[serial]

    def _entries_changed(self) -> None:
        before, self._federating = (
            self._federating,
            {
                known.entry.id: known.entry
                for known in self.entries.by_age()
                if known.is_honoured and known.entry.federates_with
            },
        )
        if self._federating != before:
            self.renew()
