"""Federated trust domains in their table against the audit log: who is followed, how, and with which bundle."""

from collections.abc import Iterator

from attrs import define, field

from pki.audit.acts import Acts
from pki.audit.federation_acts import MEMBERS
from pki.audit.recorded import Difference, RecordedFederation, as_told
from pki.codes import Code
from pki.errors import printable


@define
class FederationCheck:
    """:meth:`row` for each row once the whole log is read, then :meth:`missing` where all were shown."""

    _acts: Acts
    judged: int = field(default=0, init=False)
    unjudged: int = field(default=0, init=False)
    """Rows of which the log says nothing any more, and those that a restore may have dropped."""
    _seen: set[str] = field(factory=set, init=False)

    def row(self, row: RecordedFederation) -> Iterator[Difference]:
        """What the log says differently of a trust domain that is federated with."""
        told = self._acts.federations
        self._seen.add(row.trust_domain)
        made, ended = told.begun.get(row.trust_domain), told.ended.get(row.trust_domain)
        if made is None:
            if ended is None and self._acts.may_be_untold(row.created_at):
                self.unjudged += 1
                return
            why = "the log does not say that it was begun"
            if ended is not None:
                why = f"entry {ended} of the log says that it was ended"
            detail = f"is on record, at {as_told(row.facts.get('url'))}, and {why}"
            yield _of(row.trust_domain, Code.RECORD_UNKNOWN, detail, ended)
            return
        self.judged += 1
        for member in MEMBERS:
            ours, theirs = row.facts.get(member) or None, made.facts.get(member) or None
            if ours != theirs:
                detail = (
                    f"is on record with the {member} {as_told(ours)}, and entry {made.position} of the log says "
                    f"{as_told(theirs)}"
                )
                yield _of(row.trust_domain, Code.RECORD_CHANGED, detail, made.position)
        accepted = told.bundles.get(row.trust_domain)
        if accepted is not None and row.bundle != accepted.digest:
            detail = (
                f"has another bundle on record than entry {accepted.position} of the log accepted"
            )
            yield _of(row.trust_domain, Code.RECORD_CHANGED, detail, accepted.position)

    def missing(self) -> Iterator[Difference]:
        """Trust domains that the log says are federated with, and that are not."""
        for name, made in self._acts.federations.begun.items():
            if name in self._seen:
                continue
            if made.position < self._acts.restored:
                self.unjudged += 1
                continue
            detail = (
                f"is not on record, and entry {made.position} of the log says that it was begun"
            )
            yield _of(name, Code.RECORD_MISSING, detail, made.position)


def _of(name: str, code: Code, detail: str, position: int | None) -> Difference:
    told = f"the federation with {printable(name, 200)} {detail}"
    return Difference(code, "federation", name, told, position)
