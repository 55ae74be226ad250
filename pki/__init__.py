"""The toolkit: certificates, keys, SPIFFE IDs, trust bundles, revocation and policy.

It decides and never acts: no socket, no file, no thread, no clock. Bytes, keys and ``now`` are
arguments; :mod:`twisted_mesh` is the side that acts.
"""

from pki.codes import Code
from pki.crl.crl import Crl, read_crl
from pki.crl.issue import issue_crl
from pki.errors import PkiError, Problem
from pki.issuing.authority import Authority, Draft
from pki.issuing.csr import IssuanceRequest
from pki.issuing.profile import Profile
from pki.issuing.publication import Publication
from pki.keys import KeyAlgorithm, MemoryKey, SigningKey
from pki.ocsp.request import OcspRequest
from pki.ocsp.response import judge_answer
from pki.ocsp.sign import Responder
from pki.policy.policy import Principal, permit
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict, judge
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.x509svid import Purpose, X509Svid
from pki.validity import Validity

__all__ = [
    "Authority",
    "BundleSet",
    "Code",
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
