"""What the audit log says of roots that are believed no more: what ``roots.json`` is held against at each start.

An issuing CA signs that document, so that nobody makes another; an earlier one that was signed could be put back.
"""

from collections.abc import Iterable

from attrs import frozen

from pki.audit.log import Act, Entry
from pki.errors import PkiError
from pki.issuing.root_line import Phase

_PREPARED, _RETIRED, _REVERTED = "root-prepared", "root-retired", "root-reverted"
_STEPS = (_PREPARED, "root-activated", "root-switched", _RETIRED, _REVERTED)


@frozen
class RootHistory:
    """The roots that have left the line, by ``sha256:HEX``."""

    gone: frozenset[str] = frozenset()
    """Another rotation has begun since."""
    leaving: str = ""
    """What the last step was to take out: it may have been cut short after it was recorded. Empty for none."""

    @classmethod
    def of(cls, acts: Iterable[bytes]) -> "RootHistory":
        """By the log's entries about CAs, the oldest first. What is none of them is passed over."""
        gone: set[str] = set()
        leaving = ""
        for facts in _steps(acts):
            step, root = facts["step"], facts["fingerprint"]
            if step == _PREPARED:
                # It follows only where the step before it is over.
                gone.add(leaving)
                gone.discard(root)
            is_last = step == _RETIRED or (
                step == _REVERTED and facts.get("was") == str(Phase.PREPARED)
            )
            leaving = root if is_last else ""
        return cls(frozenset(gone - {""}), leaving)


def _steps(acts: Iterable[bytes]) -> Iterable[dict[str, str]]:
    for act in acts:
        try:
            entry = Entry.parse(act)
        except PkiError:
            continue  # a log that is damaged is for whoever verifies it
        facts = dict(entry.facts)
        if entry.act is Act.ROTATE and facts.get("step") in _STEPS and "fingerprint" in facts:
            yield facts
