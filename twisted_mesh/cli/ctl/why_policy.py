"""What ``mesh-ctl why`` says of the CA's policy: how to have its rules asked the same."""

from collections.abc import Iterable, Sequence

from pki.issuing.csr import IssuanceRequest
from pki.policy.candidates import Candidate
from twisted_mesh.api.policy_messages import PolicyStatus
from twisted_mesh.cli.ctl.why_caller import Seen


def explanation(
    policy: PolicyStatus,
    seen: Seen,
    request: IssuanceRequest | None,
    candidates: Iterable[Candidate],
) -> Sequence[str]:
    """The words of ``mesh-ctl policy explain``, for the CA's files and for what is known here of the caller."""
    facts = {"selectors": ",".join(sorted(map(str, seen.selectors)))}
    letting = next((candidate for candidate in candidates if candidate.lets_in), None)
    if letting is not None:
        facts["entry.selectors"] = ",".join(sorted(map(str, letting.entry.selectors)))
    if request is not None:
        facts["request.spiffe_id"] = str(request.spiffe_id)
        facts["request.path"] = request.spiffe_id.path
    stated = [word for name, value in facts.items() for word in ("--set", f"{name}={value}")]
    return ("mesh-ctl", "policy", "explain", policy.path, *stated)
