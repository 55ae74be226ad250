"""What the audit log says of federated trust domains: what their table is held against at each start.

The log is signed, and the table is not: who can write to it would else add whom he likes, or put roots of his own in
the place of another CA's. What the log cannot tell any more, since it was pruned, is not judged.
"""

from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256

from attrs import frozen

from pki.audit.federation_acts import MEMBERS, FederationActs
from pki.audit.log import Entry
from pki.errors import PkiError
from pki.svid.federation import BadFederation, Relationship
from twisted_mesh.stores.records import StoredFederation

_MEND = "somebody has changed the store"


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
    acts: FederationActs

    @classmethod
    def of(cls, acts: Iterable[bytes], *, is_whole: bool) -> "FederationHistory":
        """By the log's entries about them and about restores, the oldest first; others are passed over."""
        found = FederationActs()
        for act in acts:
            with suppress(PkiError):  # a log that is damaged is for whoever verifies it
                found.take(-1, Entry.parse(act))
        return cls(is_whole, found)

    def vouch(self, stored: StoredFederation, relationship: Relationship) -> None:
        """Raises :class:`BadFederation` for what the log contradicts."""
        name = str(stored.trust_domain)
        begun, is_ended = self.acts.begun.get(name), name in self.acts.ended
        if is_ended or (begun is None and self.is_whole):
            what = "was ended" if is_ended else "was never begun"
            raise BadFederation(f"by the audit log it {what}: {_MEND}")
        told = facts_of(relationship)
        if begun is not None:
            said = begun.facts
            if any(said.get(member, "") != told[member] for member in MEMBERS):
                raise BadFederation(
                    f"by the audit log it was another, at {said.get('url')}: {_MEND}"
                )
        accepted = self.acts.bundles.get(name)
        if accepted is not None and (
            stored.bundle is None or digest_of(stored.bundle) != accepted.digest
        ):
            raise BadFederation(f"its bundle is not the one that the audit log has: {_MEND}")
