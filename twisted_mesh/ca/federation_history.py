"""What the audit log says of federated trust domains: what their table is held against at each start.

The log is signed, and the table is not: who can write to it would else add whom he likes, or put roots of his own in
the place of another CA's. What the log cannot tell any more, since it was pruned, is not judged.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

from attrs import frozen

from pki.audit.log import Act, Entry
from pki.errors import PkiError
from pki.spiffe import TrustDomain
from pki.svid.federation import BadFederation, Relationship
from twisted_mesh.stores.records import StoredFederation

_PLACE = "federation "
#: By what an act tells a relationship.
_MEMBERS = ("url", "profile", "endpoint_id", "crl_url")
_MEND = "somebody has changed the store"


def place_of(trust_domain: TrustDomain) -> str:
    """The object of acts about it."""
    return f"{_PLACE}{trust_domain}"


def facts_of(relationship: Relationship) -> dict[str, str]:
    """What an act tells of it, empty where it has no such thing."""
    return {
        "url": relationship.url,
        "profile": str(relationship.profile),
        "endpoint_id": str(relationship.endpoint_id or ""),
        "crl_url": relationship.crl_url or "",
    }


def digest_of(document: bytes) -> str:
    """By what an act tells a bundle as it is kept."""
    return sha256(document).hexdigest()


@frozen
class FederationHistory:
    """What became of each trust domain last, by its name."""

    is_whole: bool
    """Whether nothing of the log was pruned: what it does not say was not done."""
    begun: Mapping[str, Mapping[str, str]]
    """What was said of those that are federated with."""
    ended: frozenset[str]
    bundles: Mapping[str, str]
    """The digests of what was accepted last, and not before a restore: that keeps what was heard since the backup."""

    @classmethod
    def of(cls, acts: Iterable[bytes], *, is_whole: bool) -> "FederationHistory":
        """By the log's entries about them and about restores, the oldest first; others are passed over."""
        begun: dict[str, Mapping[str, str]] = {}
        ended: set[str] = set()
        bundles: dict[str, str] = {}
        for act in acts:
            try:
                entry = Entry.parse(act)
            except PkiError:
                continue  # a log that is damaged is for whoever verifies it
            if entry.act is Act.RESTORE:
                bundles.clear()
            if entry.act is not Act.ADMINISTER or not entry.object.startswith(_PLACE):
                continue
            name, facts = entry.object.removeprefix(_PLACE), entry.facts
            did = facts.get("did")
            if did == "end-federation":
                begun.pop(name, None)
                ended.add(name)
            elif did == "federate":
                begun[name] = facts
                ended.discard(name)
            if did in ("federate", "end-federation", "accept-bundle"):
                bundles.pop(name, None)
                if digest := facts.get("bundle"):
                    bundles[name] = digest
        return cls(is_whole, begun, frozenset(ended), bundles)

    def vouch(self, stored: StoredFederation, relationship: Relationship) -> None:
        """Raises :class:`BadFederation` for what the log contradicts."""
        name = str(stored.trust_domain)
        said = self.begun.get(name)
        if name in self.ended or (said is None and self.is_whole):
            what = "was ended" if name in self.ended else "was never begun"
            raise BadFederation(f"by the audit log it {what}: {_MEND}")
        told = facts_of(relationship)
        if said is not None and any(said.get(member, "") != told[member] for member in _MEMBERS):
            raise BadFederation(f"by the audit log it was another, at {said.get('url')}: {_MEND}")
        digest = self.bundles.get(name)
        if digest is not None and (stored.bundle is None or digest_of(stored.bundle) != digest):
            raise BadFederation(f"its bundle is not the one that the audit log has: {_MEND}")
