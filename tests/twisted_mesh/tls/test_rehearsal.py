"""Whether a context can shake hands is tried with oneself, whatever OpenSSL is configured to."""

import pytest
from OpenSSL import SSL

from pki.keys import KeyAlgorithm
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, HOUR, NOW, key, mesh
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.tls.wires import good_svid
from twisted_mesh.tls.contexts import Role, build_context
from twisted_mesh.tls.rehearsal import CannotShakeHands, rehearse

ROLES = (
    Role(serves=True),
    Role(serves=False),
    Role(serves=True, demands_certificate=False, sends_root=True),
    Role(serves=True, exact_alerts=False),
)


@pytest.mark.parametrize("role", ROLES, ids=str)
@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_what_we_build_shakes_hands_with_itself_whatever_the_time(
    role: Role, algorithm: KeyAlgorithm
) -> None:
    ours = key("rehearsal", algorithm)
    issuing = mesh().issuing
    leaf = result_of(issuing.sign(issuing.draft(ours.public_key, BACKEND, NOW, HOUR)))
    svid = X509Svid.assemble((leaf, *issuing.intermediates), ours)
    rehearse(build_context(svid, mesh().bundles.all_roots, role), role, svid)


@pytest.mark.parametrize("serves", [True, False])
def test_a_context_that_nobody_can_use_is_told(serves: bool) -> None:
    svid, role = good_svid(), Role(serves=serves)
    context = build_context(svid, [], role)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with pytest.raises(CannotShakeHands, match=r"a TLS 1\.3 handshake of this process with itself"):
        rehearse(context, role, svid)
