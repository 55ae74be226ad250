"""What Prometheus reads of a signer."""

from collections import Counter
from collections.abc import Mapping, Sequence

from twisted_mesh.runtime.meters import Reading
from twisted_mesh.signer.service import Signer


def _signed(signer: Signer) -> Mapping[str, float]:
    """By what was signed, whatever the key."""
    found: Counter[str] = Counter()
    for (_, kind), count in signer.signed.items():
        found[kind] += count
    return found


OF_A_SIGNER: Sequence[Reading[Signer]] = (
    Reading(
        "mesh_signer_ready",
        "1 while anything can be signed, as /readyz says it.",
        lambda signer: float(signer.problem is None),
    ),
    Reading(
        "mesh_signer_keys",
        "Keys on record, by purpose; max-keys in the policy bounds them.",
        lambda signer: Counter(str(key.purpose) for key in signer.shown),
        label="purpose",
    ),
    Reading(
        "mesh_signer_signatures_total",
        "Signatures since the start, by what was signed.",
        _signed,
        label="kind",
        is_counter=True,
    ),
    Reading(
        "mesh_signer_refused_total",
        "Requests to sign that a rule has refused since the start, by the rule.",
        lambda signer: signer.refused,
        label="rule",
        is_counter=True,
    ),
)
