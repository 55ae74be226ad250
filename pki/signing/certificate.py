"""Certificates that a signer is asked to sign: parsed, laid out anew, linted by their profile, held to the policy.

What cryptography has parsed is laid out anew by its builder and compared byte for byte, so that what is judged is
what is signed: no reader finds in it what we have not seen.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import cast

from attrs import evolve
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from pki.errors import HOSTILE_INPUT, Malformed, printable
from pki.issuing.lint import Draftee, lint
from pki.issuing.profile import (
    BACKDATE,
    ISSUING,
    ISSUING_NAME,
    OCSP_RESPONDER,
    ROOT,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
    generation_of,
    responder_subject,
)
from pki.issuing.publication import Publication
from pki.issuing.unsigned import assemble, lay_out
from pki.keys import SigningKey, is_certifiable, spki_der
from pki.serial import serial_hex
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.logged import Logged, Stage, demand_pair, demand_receipts
from pki.signing.memory import (
    CertificateEffect,
    HeldKey,
    Memory,
    PrecertificateEffect,
    Verdict,
    pin_of,
)
from pki.signing.policy import SigningPolicy
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.names import is_common_name, is_dns_name, subject_for
from pki.svid.x509svid import extension, uri_names

_SECOND = timedelta(seconds=1)
#: The longest life that a CA which the signer was never shown is taken to have.
_AGES = timedelta(days=36500)
_APPROVE = (
    "have somebody look at it on the signer's machine, and say mesh-signer approve {pin} there"
)


def read_certificate(tbs: bytes, key: HeldKey) -> x509.Certificate:
    """A TBSCertificate that ``key`` is to sign, with a placeholder for the signature. Raises :class:`NotSignable`."""
    try:
        found = x509.load_der_x509_certificate(assemble(tbs, key.algorithm.identifier))
        again = _laid_out(found, key)
    except HOSTILE_INPUT as error:
        raise NotSignable(f"it begins as a certificate and cannot be decoded ({error})") from None
    if again.tbs_certificate_bytes != tbs or found.tbs_certificate_bytes != tbs:
        raise NotSignable(
            "the certificate is not written as its own content would be: another reader might see another one in it"
        )
    return found


def _laid_out(found: x509.Certificate, key: HeldKey) -> x509.Certificate:
    public_key = found.public_key()
    if not is_certifiable(public_key):
        raise ValueError("its key is of a kind that the mesh does not use")
    builder = (
        x509.CertificateBuilder()
        .serial_number(found.serial_number)
        .issuer_name(found.issuer)
        .subject_name(found.subject)
        .public_key(public_key)
        .not_valid_before(found.not_valid_before_utc)
        .not_valid_after(found.not_valid_after_utc)
    )
    for each in found.extensions:
        builder = builder.add_extension(each.value, critical=each.critical)
    return lay_out(builder, cast(SigningKey, key))


def judge_certificate(
    tbs: bytes, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    """Whether ``key`` signs it. Raises :class:`NotSignable` and :class:`SigningRefused`."""
    logged = Logged.read(tbs)
    found = read_certificate(logged.drafted, key)
    spki = spki_der(found.public_key())
    at = _at(found, policy, now)
    profile, issuers = _expected(found, spki, key, policy, memory, now)
    profile = evolve(profile, publication=_publication(found, policy))
    _demand_profile(found, issuers, profile, policy, at)
    is_known = demand_pair(logged, tbs, key, found.serial_number, memory)
    if profile.name == WORKLOAD.name:
        demand_receipts(logged, key, policy, now)
    elif logged.stage is not Stage.UNLOGGED:
        raise SigningRefused(
            "profile", f"logs are shown no certificate of the profile {profile.name}"
        )
    facts: dict[str, str | int] = {
        "profile": profile.name,
        "serial": serial_hex(found.serial_number),
        "not_after": found.not_valid_after_utc.isoformat(),
        "pin": pin_of(spki),
    }
    if uris := uri_names(found):
        facts["uri"] = uris[0]
    serial, not_after = found.serial_number, found.not_valid_after_utc
    effect: CertificateEffect | PrecertificateEffect
    if logged.stage is Stage.PRECERTIFICATE:
        effect = PrecertificateEffect(serial, not_after, logged.digest)
    else:
        effect = CertificateEffect(serial, not_after, profile.is_ca, tbs if profile.is_ca else b"")
    if logged.stage is not Stage.UNLOGGED:
        facts["stage"], facts["drafted"] = str(logged.stage), logged.digest
    return Verdict("certificate", facts, None if is_known else effect)


def _expected(  # noqa: PLR0917
    found: x509.Certificate,
    spki: bytes,
    key: HeldKey,
    policy: SigningPolicy,
    memory: Memory,
    now: datetime,
) -> tuple[Profile, list[x509.Certificate]]:
    """What it must look like, and the issuers one of which it is to fit."""
    constraints = extension(found, x509.BasicConstraints)
    is_ca = constraints is not None and constraints.ca
    usage = extension(found, x509.KeyUsage)
    certifies = usage is not None and usage.key_cert_sign
    if key.purpose == "root":
        if not is_ca:
            raise SigningRefused(
                "root-signs-cas", "a root's key certifies CAs, and this is no CA's certificate"
            )
        if found.subject == found.issuer or spki == key.spki:
            _demand_subject(found, ROOT_NAME, policy.trust_domain)
            if spki != key.spki or not is_same(found.subject, found.issuer):
                raise SigningRefused(
                    "ca-key", "it names itself as its issuer, and its key or its name is another"
                )
            return evolve(ROOT, lifetime=policy.max_root_duration), [found]
        _demand_subject(found, ISSUING_NAME, policy.trust_domain)
        _demand_ca_key(spki, memory, now)
        profile = evolve(ISSUING, lifetime=policy.max_issuing_duration)
        return profile, _issuers(found, key, ROOT_NAME, policy, memory)
    if is_ca or certifies:
        raise SigningRefused(
            "no-ca", "an issuing CA's key certifies no CA, and this is a CA's certificate"
        )
    issuers = _issuers(found, key, ISSUING_NAME, policy, memory)
    extended = extension(found, x509.ExtendedKeyUsage)
    if extended is not None and ExtendedKeyUsageOID.OCSP_SIGNING in extended:
        if not is_same(found.subject, responder_subject(found.issuer)):
            raise SigningRefused(
                "subject",
                f"a responder of this CA is called otherwise than {_named(found.subject)}",
            )
        return evolve(OCSP_RESPONDER, lifetime=policy.max_responder_duration), issuers
    _demand_names(found, policy)
    return evolve(WORKLOAD, lifetime=policy.max_cert_duration), issuers


def _issuers(
    found: x509.Certificate, key: HeldKey, name: str, policy: SigningPolicy, memory: Memory
) -> list[x509.Certificate]:
    """The CA certificates of that key, or one that stands for those which the signer was never shown."""
    known = [one for one in memory.certificates_of(key) if is_same(one.subject, found.issuer)]
    if known:
        return known
    if memory.certificates_of(key):
        raise SigningRefused(
            "issuer", f"the CA of this key is not called {_named(found.issuer)}", "say its own name"
        )
    generation = generation_of(found.issuer)
    ours = ca_subject(name, policy.trust_domain, generation)
    if not generation or not is_same(found.issuer, ours):
        raise SigningRefused(
            "issuer",
            f"{_named(found.issuer)} is no CA's name of {policy.trust_domain}",
            "show the signer the CA's certificate (mesh-signer adopt FILE), where another CA has named it",
        )
    return [_stand_in(found, key, name)]


def _stand_in(found: x509.Certificate, key: HeldKey, name: str) -> x509.Certificate:
    """A CA certificate for ``key`` by the form of the house, whose time allows for anything."""
    profile = ROOT if name == ROOT_NAME else ISSUING
    builder = (
        x509.CertificateBuilder()
        .serial_number(1)
        .issuer_name(found.issuer)
        .subject_name(found.issuer)
        .public_key(key.public_key)
        .not_valid_before(found.not_valid_before_utc)
        .not_valid_after(found.not_valid_before_utc + _AGES)
        .add_extension(profile.basic_constraints, critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key), critical=False)
    )
    return lay_out(builder, cast(SigningKey, key))


def _demand_subject(found: x509.Certificate, name: str, trust_domain: TrustDomain) -> None:
    generation = generation_of(found.subject)
    uris = uri_names(found)
    if (
        generation
        and is_same(found.subject, ca_subject(name, trust_domain, generation))
        and uris == [str(trust_domain.id)]
        and len(extension(found, x509.SubjectAlternativeName) or ()) == 1
    ):
        return
    raise SigningRefused(
        "trust-domain",
        f"it is no {name} of {trust_domain}, but {_named(found.subject)} with {', '.join(uris) or 'no URI'}",
    )


def _demand_ca_key(spki: bytes, memory: Memory, now: datetime) -> None:
    """A root certifies keys that nobody can take away, or that a person has looked at."""
    holder = memory.holder_of(spki)
    if holder is not None and holder.purpose == "issuing":
        return
    if holder is None and memory.is_approved(spki, now):
        return
    pin = pin_of(spki)
    raise SigningRefused(
        "ca-key",
        f"the CA's key {pin} is not held by this signer as that of an issuing CA",
        _APPROVE.format(pin=pin),
    )


def _demand_names(found: x509.Certificate, policy: SigningPolicy) -> None:
    names = extension(found, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    try:
        (uri,) = uris
        spiffe_id = SpiffeId.parse(uri)
    except (ValueError, Malformed):
        raise SigningRefused(
            "spiffe-id", "a workload's certificate has one SPIFFE ID, and nothing else is its URI"
        ) from None
    if spiffe_id.trust_domain != policy.trust_domain:
        raise SigningRefused(
            "trust-domain", f"{spiffe_id} is not of the trust domain {policy.trust_domain}"
        )
    if not policy.allows_id(spiffe_id):
        raise SigningRefused("names", f"the policy's names do not allow {spiffe_id}")
    for name in names or ():
        match name:
            case x509.UniformResourceIdentifier():
                pass
            case x509.DNSName(value=host) if is_dns_name(host) and policy.allows_host(host):
                pass
            case x509.IPAddress() if policy.ip_addresses:
                pass
            case x509.DNSName() | x509.IPAddress():
                raise SigningRefused(
                    "host-names", f"the policy does not allow {printable(str(name.value), 120)}"
                )
            case _:
                raise SigningRefused(
                    "host-names", f"no certificate here has a {type(name).__name__}"
                )
    commons = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    common = str(commons[0].value) if commons else ""
    wanted = subject_for(spiffe_id, common) if commons else x509.Name([])
    if not is_same(found.subject, wanted) or not (
        common in {"", spiffe_id.name} or is_common_name(common)
    ):
        raise SigningRefused(
            "subject",
            f"a workload's subject is a common name or nothing, and not {_named(found.subject)}",
        )
    if not policy.allows_common_name(common):
        # Where a certificate has no host names, OpenSSL and curl take the common name for one.
        raise SigningRefused(
            "host-names",
            f"the policy does not allow {common}, which is a common name, and a host's to many",
            "name the host in the policy, or give the entry another common name",
        )


def _publication(found: x509.Certificate, policy: SigningPolicy) -> Publication | None:
    """The URLs in it; what else these extensions may hold the lint then finds missing."""
    crl_urls = list(_points(found))
    places: dict[x509.ObjectIdentifier, list[str]] = {}
    for access in extension(found, x509.AuthorityInformationAccess) or ():
        if isinstance(access.access_location, x509.UniformResourceIdentifier):
            places.setdefault(access.access_method, []).append(access.access_location.value)
    ocsp = places.get(AuthorityInformationAccessOID.OCSP, [])
    issuer = places.get(AuthorityInformationAccessOID.CA_ISSUERS, [])
    urls = [*crl_urls, *(url for each in places.values() for url in each)]
    if not urls:
        return None
    if (refused := next((url for url in urls if not policy.allows_url(url)), None)) is not None:
        raise SigningRefused("publication", f"the policy allows no publication at {refused}")
    try:
        return Publication(*(next(iter(each), None) for each in (crl_urls, ocsp, issuer)))
    except Malformed as error:
        raise SigningRefused("publication", str(error)) from None


def _points(found: x509.Certificate) -> Iterator[str]:
    for point in extension(found, x509.CRLDistributionPoints) or ():
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier):
                yield name.value


def _at(found: x509.Certificate, policy: SigningPolicy, now: datetime) -> datetime:
    """The CA's time when it drafted this, which is to be near ours."""
    start = found.not_valid_before_utc
    # No sum where it begins later: nothing comes after the year 9999.
    at = start if start > now else min(now, start + BACKDATE)
    if abs(now - at) > policy.clock_skew + _SECOND:
        raise SigningRefused(
            "clock",
            f"it begins at {start.isoformat()}, and here it is {now.isoformat()}",
            "compare the two machines' clocks; nothing is backdated",
        )
    return at


def _demand_profile(
    found: x509.Certificate,
    issuers: list[x509.Certificate],
    profile: Profile,
    policy: SigningPolicy,
    at: datetime,
) -> None:
    authority = extension(found, x509.AuthorityKeyIdentifier)
    if authority is not None and authority.authority_cert_issuer is not None:
        raise SigningRefused(
            "profile", "its authority key identifier is more than a key's identifier"
        )
    # A life counts from issue, by the CA's clock; ours may be behind that, and what it backdates comes to that.
    allowed = evolve(profile, lifetime=profile.lifetime + BACKDATE + policy.clock_skew)
    problems = []
    for issuer in issuers:
        problems = lint(Draftee(found, issuer, allowed, at))
        if not problems:
            return
    said = "; ".join(f"{problem.detail} ({problem.rule})" for problem in problems)
    raise SigningRefused("profile", f"it breaks the profile {profile.name}: {said}")


def is_same(name: x509.Name, other: x509.Name) -> bool:
    """Whether both are written alike: cryptography calls equal what differs in the types of its strings.

    So do some readers and others do not: whoever revokes one of them might miss the other.
    """
    return name.public_bytes() == other.public_bytes()


def _named(name: x509.Name) -> str:
    return name.rfc4514_string()[:200] or "nothing"
