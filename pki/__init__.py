"""The toolkit: certificates, keys, SPIFFE IDs, trust bundles, revocation and policy.

It decides and never acts: no socket, no file, no thread, no clock. Bytes, keys and ``now`` are
arguments; :mod:`twisted_mesh` is the side that acts.
"""

from pki.authority import Authority, Draft
from pki.bundle import BundleSet, TrustBundle
from pki.chain import Verdict, judge
from pki.crl import Crl, read_crl
from pki.crl_issuer import issue_crl
from pki.csr import IssuanceRequest
from pki.errors import PkiError, Problem
from pki.keys import KeyAlgorithm, MemoryKey, SigningKey
from pki.ocsp import OcspRequest
from pki.ocsp_answer import judge_answer
from pki.ocsp_responder import Responder
from pki.policy import Principal, permit
from pki.profile import Profile
from pki.publication import Publication
from pki.revocation import Revocation, RevocationSet
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid import Purpose, X509Svid
from pki.validity import Validity

__all__ = [
    "Authority",
    "BundleSet",
    "Crl",
    "Draft",
    "IssuanceRequest",
    "KeyAlgorithm",
    "MemoryKey",
    "OcspRequest",
    "PkiError",
    "Principal",
    "Problem",
    "Profile",
    "Publication",
    "Purpose",
    "Responder",
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
    "issue_crl",
    "judge",
    "judge_answer",
    "permit",
    "read_crl",
]
