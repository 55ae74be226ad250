"""Bad certificates, signed by the CA's own issuing key: each breaks one rule and no other."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING
from pki.keys import MemoryKey
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem, load_certificates
from tests.authorities import forge, key, mesh
from tests.interop.house import Identity

HOUR = timedelta(hours=1)
MESH = TrustDomain("mesh.local")
PAYMENT = "spiffe://mesh.local/service/payment-worker"
API_SERVER = "spiffe://mesh.local/service/api-server"


def present() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def issuing_authority(state: Path) -> Authority:
    """The issuing CA of a running mesh, taken from under it."""
    private = state / "ca" / "private" / "issuing.key"
    (certificate,) = load_certificates((state / "ca" / "issuing.crt").read_bytes())
    return Authority(certificate, MemoryKey.from_pem(private.read_bytes()), (certificate,))


def another_mesh(trust_domain: TrustDomain = MESH) -> Authority:
    """The issuing CA of a mesh of the same names, whose root nobody here holds."""
    return mesh(trust_domain, key("another root"), key("another CA"), present()).issuing


def write(
    directory: Path, certificates: Sequence[x509.Certificate], its_key: MemoryKey | None = None
) -> Identity:
    directory.mkdir(parents=True)
    identity = Identity(directory)
    identity.cert.write_bytes(certificates_pem(certificates))
    identity.key.write_bytes((its_key or key(9)).to_pem())
    identity.key.chmod(0o600)
    return identity


def forged(
    directory: Path, issuer: Authority, *, alone: bool = False, **overrides: Any
) -> Identity:
    """An identity whose leaf differs from a good one by ``overrides``, as tests.authorities.forge takes them."""
    now = present()
    overrides = {"uris": [PAYMENT], "start": now - HOUR / 60, "end": now + HOUR, **overrides}
    leaf = forge(issuer, **overrides)
    return write(directory, (leaf,) if alone else (leaf, *issuer.intermediates))


def server_names(spiffe_id: str, host: str = "localhost") -> dict[Any, Any]:
    """Names of a server that differs from the true one in nothing but who signed it."""
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(spiffe_id), x509.DNSName(host)]
    )
    return {x509.SubjectAlternativeName: (names, False)}


def usage(*purposes: Any) -> dict[Any, Any]:
    return {x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(purposes), False)}


def _expired(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, start=present() - 2 * HOUR, end=present() - HOUR)


def _early(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, start=present() + HOUR, end=present() + 2 * HOUR)


def _foreign(directory: Path, ours: Authority) -> Identity:
    return forged(directory, another_mesh())


def _foreign_domain(directory: Path, ours: Authority) -> Identity:
    other = TrustDomain("other.example")
    return forged(directory, another_mesh(other), uris=["spiffe://other.example/service/api"])


def _foreign_name(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, uris=["spiffe://other.example/service/api"])


def _self_signed(directory: Path, ours: Authority) -> Identity:
    now = present()
    return write(directory, [forge(None, uris=[PAYMENT], start=now - HOUR, end=now + HOUR)])


def _server_only(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, replace=usage(ExtendedKeyUsageOID.SERVER_AUTH))


def _no_usage(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, replace={x509.ExtendedKeyUsage: None})


def _two_names(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, uris=[PAYMENT, API_SERVER])


def _no_names(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, replace={x509.SubjectAlternativeName: None})


def _web_address(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, uris=["https://mesh.local/service/payment-worker"])


def _domain_only(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, uris=["spiffe://mesh.local"])


def _authority(directory: Path, ours: Authority) -> Identity:
    # As good a client certificate as a CA's can be: it may sign, and be used by clients.
    usages = dict.fromkeys(ISSUING.key_usage.__dict__, False)
    usages = {name.removeprefix("_"): False for name in usages} | {
        "digital_signature": True,
        "key_cert_sign": True,
    }
    return forged(
        directory,
        ours,
        replace={
            x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True),
            x509.KeyUsage: (x509.KeyUsage(**usages), True),
        },
    )


def _leaf_alone(directory: Path, ours: Authority) -> Identity:
    return forged(directory, ours, alone=True)


def _constrained(directory: Path, ours: Authority) -> Identity:
    domain = x509.UniformResourceIdentifier("mesh.local")
    constraints = x509.NameConstraints(permitted_subtrees=[domain], excluded_subtrees=None)
    return forged(directory, ours, replace={x509.NameConstraints: (constraints, False)})


def _misidentified(directory: Path, ours: Authority) -> Identity:
    identifier = x509.AuthorityKeyIdentifier(b"another key", None, None)
    return forged(directory, ours, replace={x509.AuthorityKeyIdentifier: (identifier, False)})


def _damaged(directory: Path, ours: Authority) -> Identity:
    identity = forged(directory, ours)
    leaf, *others = load_certificates(identity.cert.read_bytes())
    encoded = leaf.public_bytes(serialization.Encoding.DER)
    broken = x509.load_der_x509_certificate(encoded[:-1] + bytes((encoded[-1] ^ 1,)))
    identity.cert.write_bytes(certificates_pem([broken, *others]))
    return identity


Forgery = Callable[[Path, Authority], Identity]

#: Forgery, the alert as OpenSSL 3.0 tells a refused client, and the server's code and words.
FORGERIES: dict[str, tuple[Forgery, str, str]] = {
    "expired": (_expired, "certificate expired", r"expired: .* expired at .* ago; here it is .*"),
    "not-yet-valid": (
        _early,
        "bad certificate",
        r"not-yet-valid: .*compare the two machines' clocks",
    ),
    "another-ca": (_foreign, "unknown ca", r"unknown-authority: .* signed by an unknown authority"),
    "another-trust-domain": (
        _foreign_domain,
        "unknown ca",
        r"unknown-trust-domain: no bundle is held for other\.example \(held: mesh\.local\)",
    ),
    "another-trust-domains-name-from-our-ca": (
        _foreign_name,
        "unknown ca",
        r"unknown-trust-domain: no bundle is held for other\.example",
    ),
    "self-signed": (_self_signed, "unknown ca", r"unknown-authority: "),
    "server-auth-only": (
        _server_only,
        "unsupported certificate",
        r"wrong-usage: extended key usage does not allow clientAuth",
    ),
    "no-extended-key-usage": (
        _no_usage,
        "unsupported certificate",
        r"wrong-usage: extended key usage does not allow clientAuth",
    ),
    "two-uri-names": (
        _two_names,
        "bad certificate",
        r"not-an-svid: .*exactly one URI name, this one 2",
    ),
    "no-name-at-all": (
        _no_names,
        "bad certificate",
        r"not-an-svid: .*exactly one URI name, this one 0",
    ),
    "a-web-address": (_web_address, "bad certificate", r"not-an-svid: .*it begins with spiffe://"),
    "a-trust-domain-only": (
        _domain_only,
        "bad certificate",
        r"not-an-svid: .*a workload's ID has a path",
    ),
    "a-ca-as-leaf": (
        _authority,
        "bad certificate",
        r"not-an-svid: a CA certificate is no workload's identity",
    ),
    "name-constraints": (
        _constrained,
        "bad certificate",
        r"profile-violation: it has name constraints that are not critical",
    ),
    "another-key-identified": (
        _misidentified,
        "unknown ca",
        # OpenSSL leaves out the CA that does not fit; pki-inspect verify, which sees it, says issuer-mismatch.
        r"unknown-authority: ",
    ),
    "damaged-signature": (
        _damaged,
        "decrypt error",
        r"bad-signature: its signature is not of the key of CN=mtls-mesh-issuing-ca",
    ),
    "leaf-only": (
        _leaf_alone,
        "unknown ca",
        r"incomplete-chain: the peer did not present its issuer CN=mtls-mesh-issuing-ca",
    ),
}
