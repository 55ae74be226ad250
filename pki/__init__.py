"""The toolkit: certificates, keys, SPIFFE IDs, trust bundles, revocation and policy.

It decides and never acts: no socket, no file, no thread, no clock. Bytes, keys and ``now`` are
arguments; :mod:`twisted_mesh` is the side that acts.
"""

from pki.authority import Authority, Draft
from pki.bundle import BundleSet, TrustBundle
from pki.chain import Verdict, judge
from pki.csr import IssuanceRequest
from pki.errors import PkiError, Problem
from pki.keys import KeyAlgorithm, MemoryKey, SigningKey
from pki.policy import Principal, permit
from pki.profile import Profile
from pki.revocation import Revocation, RevocationSet
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid import Purpose, X509Svid
from pki.validity import Validity

__all__ = [
    "Authority",
    "BundleSet",
    "Draft",
    "IssuanceRequest",
    "KeyAlgorithm",
    "MemoryKey",
    "PkiError",
    "Principal",
    "Problem",
    "Profile",
    "Purpose",
    "Revocation",
    "RevocationSet",
    "SigningKey",
    "SpiffeId",
    "SpiffePattern",
    "TrustBundle",
    "TrustDomain",
    "Validity",
    "Verdict",
    "X509Svid",
    "judge",
    "permit",
]
