"""A test kit for programs that join a mesh: a CA in memory, members, handshakes, a clock, forged identities.

Needs no process, port, file, reactor or test framework; keys are of P-256, which takes no time.
docs/TESTING.md shows how it is used.
"""

import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from OpenSSL import SSL
from twisted.internet.task import Clock as TwistedClock

from pki.errors import Problem
from pki.issuing.authority import Authority
from pki.issuing.profile import (
    BACKDATE,
    ISSUING_NAME,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
    responder_subject,
)
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.serial import new_serial
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.names import address, subject_for
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import Purpose, X509Svid, extension
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.generation import publish
from twisted_mesh.tls import verify
from twisted_mesh.tls.contexts import Role, build_context
from twisted_mesh.tls.verify import Handshake
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.reviewer import Reviewer
from twisted_mesh.trust.trust import Trust

T = TypeVar("T")
Extensions = Mapping[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None]
#: Longer than a TLS record.
_RECORD = 1 << 16
_TURNS = 20

_log = logger("testing")


class Clock(TwistedClock):
    """A clock of Twisted that also tells the time of day: ``now`` is what :mod:`pki` and a judge are given.

    OpenSSL looks at the machine's own clock: a certificate that has ended by this one alone is refused by our
    verdict, as it is in production.
    """

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__()
        self._start = start or datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return self._start + timedelta(seconds=self.seconds())


def _trust_domain(named: str | TrustDomain) -> TrustDomain:
    return named if isinstance(named, TrustDomain) else TrustDomain.parse(named)


@define(eq=False)
class MemoryCa:
    """The CA of one trust domain: a root and an issuing CA below it, an hour old."""

    trust_domain: TrustDomain = field(default=TrustDomain("mesh.test"), converter=_trust_domain)
    clock: Clock = field(factory=Clock)
    root: Authority = field(init=False)
    issuing: Authority = field(init=False)
    revoked: RevocationSet = field(factory=RevocationSet, init=False)
    _members: "list[Member]" = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        since = self.clock.now() - timedelta(hours=1)
        self.root = at_once(Authority.create_root(_key(), self.trust_domain, since))
        self.issuing = at_once(self.root.create_issuing(_key(), self.trust_domain, since))

    @property
    def bundle(self) -> TrustBundle:
        """Its trust domain, with its root."""
        return TrustBundle(self.trust_domain, (self.root.certificate,))

    def id(self, name: str) -> SpiffeId:
        """``shop`` is ``spiffe://mesh.test/service/shop``; a whole SPIFFE ID is itself."""
        if name.startswith("spiffe://"):
            return SpiffeId.parse(name)
        return self.trust_domain.member("service", *name.split("/"))

    def issue(
        self,
        name: str,
        *,
        dns: Iterable[str] = ("localhost",),
        ip: Iterable[str] = ("127.0.0.1",),
        lifetime: timedelta = timedelta(hours=1),
        now: datetime | None = None,
    ) -> X509Svid:
        """A good SVID with its key. Raises :class:`pki.errors.PkiError` as a CA does."""
        key = _key()
        draft = self.issuing.draft(
            key.public_key,
            self.id(name),
            now or self.clock.now(),
            lifetime,
            dns_names=tuple(dns),
            ip_addresses=tuple(map(address, ip)),
        )
        return X509Svid.assemble(
            (at_once(self.issuing.sign(draft)), *self.issuing.intermediates), key
        )

    def member(
        self, name: str, *, allow: Iterable[str] | None = None, svid: X509Svid | None = None
    ) -> "Member":
        """Somebody with that name who lets in ``allow`` (IDs, names or patterns; everybody, if not said)."""
        wanted = [f"{self.trust_domain.id}/**"] if allow is None else allow
        patterns = tuple(
            SpiffePattern.parse(text if text.startswith("spiffe://") else str(self.id(text)))
            for text in wanted
        )
        trust = Trust(BundleSet.of(self.bundle), self.revoked, patterns)
        member = Member(svid or self.issue(name), Judge(self.clock.now, trust))
        self._members.append(member)
        return member

    def revoke(self, svid: X509Svid) -> None:
        """Have every member of this CA refuse it from now on."""
        now = self.clock.now()
        leaf = svid.leaf
        issuer = key_id(self.issuing.certificate.public_key())
        revocation = Revocation(
            issuer, leaf.serial_number, now, Reason.UNSPECIFIED, leaf.not_valid_after_utc
        )
        self.revoked = self.revoked.merged([revocation], now)
        for member in self._members:
            reviewer = Reviewer(member.judge, ConnectionRegistry(), self.clock, _log)
            reviewer.believe(evolve(member.judge.trust, revocations=self.revoked), [revocation])

    def forged(self, what: str, name: str = "shop") -> X509Svid:
        """An identity that must be refused, by what is wrong with it: one of :data:`FORGERIES`."""
        if what not in FORGERIES:
            raise ValueError(f"{what!r} is none of {', '.join(FORGERIES)}")
        return FORGERIES[what](self, self.id(name))


@define(eq=False)
class Member:
    """Somebody in a mesh: what is shown, and by what others are judged."""

    svid: X509Svid
    judge: Judge

    def connection(self, *, serves: bool) -> SSL.Connection:
        """One end of a TLS connection as our endpoints make it, over memory BIOs, judged in its handshake."""
        context = build_context(self.svid, self.judge.trust.bundles.all_roots, Role(serves=serves))
        connection = SSL.Connection(context, None)
        verify.begin(
            connection, Handshake(self.judge, Purpose.CLIENT if serves else Purpose.SERVER)
        )
        connection.set_accept_state() if serves else connection.set_connect_state()
        return connection

    def write(self, directory: Path) -> None:
        """``svid.pem``, ``svid_key.pem`` and ``svid_bundle.pem``, as ``mesh-client --export`` writes them."""
        roots = self.judge.trust.bundles.get(self.svid.spiffe_id.trust_domain)
        publish(
            directory,
            {
                "svid.pem": (self.svid.chain_pem(), 0o644),
                "svid_key.pem": (self.svid.key.to_pem(), 0o600),
                "svid_bundle.pem": (roots.to_pem() if roots else b"", 0o644),
            },
        )

    def ssl_context(self, *, serves: bool) -> ssl.SSLContext:
        """A context of the standard library with the same files: it knows roots only, no ID and no revocation.

        It stands for a program that is not of the mesh, at the other end of what is tested.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        with TemporaryDirectory() as made:
            home = Path(made) / "identity"
            self.write(home)
            files = home / "current" if (home / "current").exists() else home
            context.load_cert_chain(files / "svid.pem", files / "svid_key.pem")
            context.load_verify_locations(files / "svid_bundle.pem")
        return context


@frozen
class Shaken:
    """What became of a handshake."""

    client: SpiffeId | None
    """Whom the server has let in."""
    server: SpiffeId | None
    """Whom the client has reached."""
    server_problems: tuple[Problem, ...]
    """Why the server refused the client; empty where it did not, or was not asked."""
    client_problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether both have let each other in."""
        return self.client is not None and self.server is not None

    @property
    def codes(self) -> list[str]:
        """All that was found, for an assertion: ``["revoked"]``."""
        return [str(problem.code) for problem in (*self.client_problems, *self.server_problems)]


def shake_hands(server: Member, client: Member) -> Shaken:
    """A whole TLS handshake between two members, in memory; refusals are in what is returned."""
    ends = server.connection(serves=True), client.connection(serves=False)
    left = list(ends)
    for _ in range(_TURNS):
        for end in tuple(left):
            try:
                end.do_handshake()
                left.remove(end)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                left.remove(end)
        for one, other in (ends, ends[::-1]):
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(_RECORD))
        if not left:
            break
    at_server, at_client = map(verify.handshake_of, ends)
    return Shaken(
        _accepted(at_server), _accepted(at_client), at_server.problems, at_client.problems
    )


def _accepted(handshake: Handshake) -> SpiffeId | None:
    verdict = handshake.verdict
    return verdict.spiffe_id if verdict is not None and handshake.accepted else None


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what is awaited in name only, as signing with a key in memory is; also within a running loop."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("this really waits for something: await it")


def _key() -> MemoryKey:
    return MemoryKey.generate(KeyAlgorithm.EC_P256)


def names(*uris: str) -> x509.SubjectAlternativeName:
    """URI SANs, whatever they say."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def forge(
    issuer: Authority | None,
    profile: Profile = WORKLOAD,
    *,
    subject_key: MemoryKey | CertificateIssuerPrivateKeyTypes,
    trust_domain: TrustDomain,
    start: datetime,
    end: datetime,
    subject: x509.Name | None = None,
    issuer_name: x509.Name | None = None,
    uris: Iterable[str] | None = None,
    serial: int | None = None,
    digest: hashes.SHA256 | hashes.SHA224 | None = None,
    replace: Extensions | None = None,
) -> x509.Certificate:
    """A certificate of ``profile`` that passes every lint but for what is overridden.

    ``issuer`` None signs with the subject's own key. ``replace`` gives an extension another value
    and criticality, or takes it away (None).
    """
    private_key = subject_key.private_key if isinstance(subject_key, MemoryKey) else subject_key
    if subject is None:
        subject = _default_subject(profile, trust_domain)
        if profile.is_responder and issuer:
            subject = responder_subject(issuer.certificate.subject)
    if uris is None:
        uris = [
            str(trust_domain.id if profile.is_ca else trust_domain.member("service", "backend"))
        ]
    public_key = private_key.public_key()
    ski = x509.SubjectKeyIdentifier.from_public_key(public_key)
    issuer_ski = extension(issuer.certificate, x509.SubjectKeyIdentifier) if issuer else ski
    if issuer_ski is None:
        raise ValueError("the issuer has no subject key identifier")
    aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski)
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] = {
        x509.BasicConstraints: (profile.basic_constraints, True),
        x509.KeyUsage: (profile.key_usage, True),
        x509.SubjectKeyIdentifier: (ski, False),
        x509.AuthorityKeyIdentifier: (aki, False),
        x509.SubjectAlternativeName: (names(*uris), not subject.rdns),
    }
    if profile.extended:
        extensions[x509.ExtendedKeyUsage] = (x509.ExtendedKeyUsage(profile.extended), False)
    if profile.is_responder:
        extensions[x509.SubjectAlternativeName] = None
        extensions[x509.OCSPNoCheck] = (x509.OCSPNoCheck(), False)
    for published in profile.publication.extensions if profile.publication else ():
        extensions[type(published)] = (published, False)
    extensions.update(replace or {})
    if issuer_name is None:
        issuer_name = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .serial_number(new_serial() if serial is None else serial)
        .issuer_name(issuer_name)
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for found in extensions.values():
        if found is not None:
            builder = builder.add_extension(found[0], critical=found[1])
    if issuer is None:
        hashed = hasattr(private_key, "key_size")  # EdDSA hashes by itself
        return builder.sign(private_key, digest or (hashes.SHA256() if hashed else None))
    if not isinstance(issuer.key, MemoryKey):
        raise TypeError("the issuer's key is not in memory")
    return builder.sign(issuer.key.private_key, digest or issuer.key.algorithm.hash)


def _default_subject(profile: Profile, trust_domain: TrustDomain) -> x509.Name:
    if not profile.is_ca:
        return subject_for(trust_domain.member("service", "backend"))
    name = ROOT_NAME if profile.path_length else ISSUING_NAME
    return ca_subject(name, trust_domain, 1)


def _svid(
    ca: MemoryCa, spiffe_id: SpiffeId, issuer: Authority | None = None, **overrides: Any
) -> X509Svid:
    """Not by ``assemble``, which refuses what a forger shows."""
    key, issuer = _key(), issuer or ca.issuing
    now = ca.clock.now()
    overrides.setdefault("uris", [str(spiffe_id)])
    overrides.setdefault("start", now - BACKDATE)
    overrides.setdefault("end", now + timedelta(hours=1))
    leaf = forge(issuer, subject_key=key, trust_domain=ca.trust_domain, **overrides)
    return X509Svid(leaf, tuple(issuer.intermediates), key, spiffe_id)


def _expired(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    end = ca.clock.now() - timedelta(minutes=1)
    return _svid(ca, spiffe_id, start=end - timedelta(minutes=30), end=end)


def _not_yet_valid(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    start = ca.clock.now() + timedelta(minutes=30)
    return _svid(ca, spiffe_id, start=start, end=start + timedelta(hours=1))


def _other_root(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    return _svid(ca, spiffe_id, MemoryCa(ca.trust_domain, ca.clock).issuing)


def _two_ids(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    return _svid(ca, spiffe_id, uris=[str(spiffe_id), f"{spiffe_id}-too"])


def _no_id(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    dns = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return _svid(ca, spiffe_id, replace={x509.SubjectAlternativeName: (dns, False)})


def _other_domain(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    foreign = TrustDomain(f"not-{ca.trust_domain}").member(*spiffe_id.segments)
    return _svid(ca, foreign)


def _revoked(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    svid = ca.issue(str(spiffe_id))
    ca.revoke(svid)
    return svid


#: What can be wrong with an identity, for :meth:`MemoryCa.forged`: each must be refused.
FORGERIES: Mapping[str, Callable[[MemoryCa, SpiffeId], X509Svid]] = {
    "expired": _expired,
    "not-yet-valid": _not_yet_valid,
    "other-root": _other_root,
    "two-ids": _two_ids,
    "no-id": _no_id,
    "other-domain": _other_domain,
    "revoked": _revoked,
}
