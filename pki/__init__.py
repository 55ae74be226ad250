"""The toolkit: certificates, keys, SPIFFE IDs, trust bundles, revocation and policy.

It decides and never acts: no socket, no file, no thread, no clock. Bytes, keys and ``now`` are
arguments; :mod:`twisted_mesh` is the side that acts.

The nouns below are loaded when they are first used: who shows a certificate loads no authority.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pki.codes import Code
    from pki.crl.crl import Crl, read_crl
    from pki.crl.issue import issue_crl
    from pki.errors import PkiError, Problem
    from pki.issuing.authority import Authority
    from pki.issuing.csr import IssuanceRequest
    from pki.issuing.draft import Draft
    from pki.issuing.profile import Profile
    from pki.issuing.publication import Publication
    from pki.keys import KeyAlgorithm, MemoryKey, SigningKey
    from pki.ocsp.request import OcspRequest
    from pki.ocsp.response import judge_answer
    from pki.ocsp.sign import Responder
    from pki.policy.policy import permit
    from pki.policy.principal import Principal
    from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
    from pki.svid.bundle import BundleSet, TrustBundle
    from pki.svid.chain import Verdict, judge
    from pki.svid.revocation_set import Revocation, RevocationSet
    from pki.svid.x509svid import Purpose, X509Svid
    from pki.validity import Validity

_HOMES = {
    "Authority": "pki.issuing.authority",
    "BundleSet": "pki.svid.bundle",
    "Code": "pki.codes",
    "Crl": "pki.crl.crl",
    "Draft": "pki.issuing.draft",
    "IssuanceRequest": "pki.issuing.csr",
    "KeyAlgorithm": "pki.keys",
    "MemoryKey": "pki.keys",
    "OcspRequest": "pki.ocsp.request",
    "PkiError": "pki.errors",
    "Principal": "pki.policy.policy",
    "Problem": "pki.errors",
    "Profile": "pki.issuing.profile",
    "Publication": "pki.issuing.publication",
    "Purpose": "pki.svid.x509svid",
    "Responder": "pki.ocsp.sign",
    "Revocation": "pki.svid.revocation_set",
    "RevocationSet": "pki.svid.revocation_set",
    "SigningKey": "pki.keys",
    "SpiffeId": "pki.spiffe",
    "SpiffePattern": "pki.spiffe",
    "TrustBundle": "pki.svid.bundle",
    "TrustDomain": "pki.spiffe",
    "Validity": "pki.validity",
    "Verdict": "pki.svid.chain",
    "X509Svid": "pki.svid.x509svid",
    "issue_crl": "pki.crl.issue",
    "judge": "pki.svid.chain",
    "judge_answer": "pki.ocsp.response",
    "permit": "pki.policy.policy",
    "read_crl": "pki.crl.crl",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pki' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
