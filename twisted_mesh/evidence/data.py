"""Evidence on its way from an endpoint to its CA."""

from attrs import field, frozen


@frozen
class AttestationData:
    """Evidence of a platform, as the member ``attestation`` of a request to sign carries it."""

    kind: str
    """Which platform's: ``k8s``."""
    data: bytes = field(repr=False)
    """One JSON value: for a token the JSON string of it."""
