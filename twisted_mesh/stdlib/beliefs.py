"""What is believed once a certificate or news have come from the CA: a value from a value."""

from attrs import evolve
from cryptography import x509

from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid, extension
from twisted_mesh.api.trust_news import TrustNews
from twisted_mesh.interfaces import Identity
from twisted_mesh.runtime.clock import Now
from twisted_mesh.trust.judge import Trust


def with_identity(trust: Trust, identity: Identity) -> Trust:
    """With the roots that came beside a certificate, and with who issued it."""
    return evolve(
        trust,
        bundles=_merged(trust.bundles, identity.bundles),
        known_issuers=trust.known_issuers | _issuers(identity.svid),
    )


def with_news(trust: Trust, news: TrustNews, now: Now) -> Trust:
    """With what the CA says now; the same object where nothing of it is new."""
    revocations = trust.revocations.merged(news.revocations, now())
    bundles = trust.bundles if news.bundles == trust.bundles else news.bundles
    if revocations is trust.revocations and bundles is trust.bundles:
        return trust
    return evolve(trust, revocations=revocations, bundles=bundles)


def _issuers(svid: X509Svid) -> set[bytes]:
    found = (extension(cert, x509.SubjectKeyIdentifier) for cert in svid.intermediates)
    return {identifier.digest for identifier in found if identifier is not None}


def _merged(before: BundleSet, bundles: BundleSet) -> BundleSet:
    for bundle in bundles:
        before = before.with_bundle(bundle)
    return before
