"""Federation: the trust domain that is followed, and which of its bundles is believed.

SPIFFE Federation, sections 4.2 and 5; SPIFFE Trust Domain and Bundle, section 4.1. When to ask again says
:mod:`pki.svid.refresh`.
"""

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from urllib.parse import urlsplit

from attrs import evolve, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, discreet
from pki.keys import key_id
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.federated_document import ForeignRoot, refuse_foreign
from pki.svid.x509svid import subject_of

#: Characters of a URL.
LONGEST_URL = 2000
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+", re.ASCII)


class BadFederation(Malformed):
    """What is said of a trust domain that is to be followed cannot be used."""

    code = Code.BAD_FEDERATION


class OlderBundle(PkiError):
    """The sequence number of a bundle went back."""

    code = Code.OLDER_BUNDLE


class AlteredBundle(PkiError):
    """Two bundles have one sequence number and different keys."""

    code = Code.ALTERED_BUNDLE


class Profile(StrEnum):
    """How the server that has a bundle proves who it is (SPIFFE Federation section 5.2)."""

    HTTPS_WEB = "https_web"
    """By a certificate of the web's CAs, for the URL's host."""
    HTTPS_SPIFFE = "https_spiffe"
    """By an X.509-SVID with the one SPIFFE ID that is configured."""

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Raises :class:`BadFederation`. It is never inferred (section 7.2)."""
        try:
            return cls(text)
        except ValueError:
            raise BadFederation(
                f"{discreet(text, 40)!r} is no profile of SPIFFE Federation: it is https_spiffe or https_web"
            ) from None


@frozen
class Relationship:
    """A trust domain that is followed: where its bundle is, and who has it.

    The name is configured, never inferred: a bundle does not say whose it is (section 7.2).
    """

    trust_domain: TrustDomain
    url: str
    profile: Profile
    endpoint_id: SpiffeId | None = None
    """Of the server, with ``https_spiffe``; never with ``https_web``."""
    crl_url: str | None = None
    """Where the peer publishes its CRL: what is configured here, never what a certificate says."""

    @classmethod
    def parse(
        cls,
        trust_domain: str,
        url: str,
        profile: str,
        endpoint_id: str | None = None,
        crl_url: str | None = None,
        *,
        own: TrustDomain,
        held: Collection[TrustDomain] = (),
        has_bundle: bool = False,
    ) -> "Relationship":
        """What an administrator has said. Raises :class:`BadFederation` or
        :class:`~pki.spiffe.NotASpiffeId`.

        ``held`` are the trust domains whose bundles are held, apart from our ``own``; ``has_bundle`` says that a
        bundle of this trust domain is given along with it.
        """
        domain = TrustDomain.parse(trust_domain)
        if domain == own:
            raise BadFederation(
                f"{domain} is our own trust domain: its bundle is the CA's, and nobody else's is believed for it; "
                "two meshes of one name cannot federate, one of them has to be renamed"
            )
        chosen = Profile.parse(profile)
        endpoint_url(url)
        if crl_url is not None:
            endpoint_url(crl_url, "--crl-url", "http")
        if chosen is Profile.HTTPS_WEB:
            if endpoint_id is not None:
                raise BadFederation(
                    "https_web takes a URL and nothing more: the certificate is of the web's CAs and has no SPIFFE ID; "
                    "leave it out, or choose https_spiffe (SPIFFE Federation section 5.2.1.2)"
                )
            if has_bundle:
                raise BadFederation(
                    "https_web takes a URL and nothing more: the bundle comes from there; leave the file out, or "
                    "choose https_spiffe (SPIFFE Federation section 5.2.1.2)"
                )
            return cls(domain, url, chosen, None, crl_url)
        if endpoint_id is None:
            raise BadFederation(
                "https_spiffe demands the SPIFFE ID of the server that has the bundle: ask its operator, and name it "
                "(SPIFFE Federation section 5.2.2.2)"
            )
        endpoint = SpiffeId.parse(endpoint_id)
        if not endpoint.path:
            raise BadFederation(
                f"{endpoint} has no path, so no server has it: name the bundle server's own ID"
            )
        if endpoint.trust_domain == domain:
            if not has_bundle and domain not in held:
                raise BadFederation(
                    f"https_spiffe demands a bundle of {domain} to begin with: its server proves itself by it; get the "
                    "file from its operator by a way that you trust (SPIFFE Federation section 5.2.2.2)"
                )
        elif endpoint.trust_domain != own and endpoint.trust_domain not in held:
            raise BadFederation(
                f"{endpoint} is of a trust domain whose bundle is not held here: federate with "
                f"{endpoint.trust_domain} first (SPIFFE Federation section 5.2.2.2)"
            )
        return cls(domain, url, chosen, endpoint, crl_url)

    @property
    def is_self_serving(self) -> bool:
        """Whether the server proves itself by the very bundle that it has."""
        return self.endpoint_id is not None and self.endpoint_id.trust_domain == self.trust_domain


def endpoint_url(text: str, what: str = "the URL", scheme: str = "https") -> tuple[str, int]:
    """Host and port of a bundle endpoint's URL (SPIFFE Federation sections 5.2.1.1 and 5.2.2.1).

    ``what`` it is called in messages. Raises :class:`BadFederation`.
    """
    shown = discreet(text, 100)
    usable = text.isascii() and text.isprintable() and not any(c in text for c in ' "<>\\^`{|}')
    if not usable or len(text) > LONGEST_URL:
        raise BadFederation(f"{what} {shown!r} is none: write {scheme}://HOST/PATH")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise BadFederation(f"{what} {shown!r} is none: write {scheme}://HOST/PATH") from None
    if url.scheme != scheme:
        raise BadFederation(f"{what} {shown} is not {scheme}: write {scheme}://HOST/PATH")
    if "@" in url.netloc:
        raise BadFederation(f"{what} {shown} has user information, which it must not: leave it out")
    if "#" in text:
        raise BadFederation(
            f"{what} {shown} has a fragment, which no server hears of: leave it out"
        )
    if port == 0 or not _HOST.fullmatch(host):
        raise BadFederation(f"{what} {shown} names no host: write {scheme}://HOST/PATH")
    return host, port or {"https": 443, "http": 80}[scheme]


def accept(
    held: TrustBundle | None, fetched: TrustBundle, *, accept_older: bool = False
) -> TrustBundle:
    """The bundle to be believed from now on: what was fetched, unless it is older than what is held.

    Its sequence number never goes back, and tells one content from another (SPIFFE Trust Domain and Bundle section
    4.1.1): raises :class:`OlderBundle` or :class:`AlteredBundle`. ``accept_older`` is an administrator's word, for a
    peer that was restored from a backup. Without a number, which counts as 0, the last that came is the newest,
    unless one with a number is held. No keys at all is an answer too: then nobody of that trust domain is believed.
    """
    if held is None or accept_older:
        return fetched
    if held.trust_domain != fetched.trust_domain:
        raise AssertionError("bundles of two trust domains are never compared")
    if fetched.sequence < held.sequence:
        raise OlderBundle(
            f"the bundle of {held.trust_domain} went back, from number {held.sequence} to {fetched.sequence}: an old "
            "copy, or its CA was restored from a backup; ask its operator, and if so: "
            f"mesh-ctl federation refresh {held.trust_domain} --accept-older"
        )
    if fetched.sequence == held.sequence and held.sequence and not _same_keys(held, fetched):
        raise AlteredBundle(
            f"the bundle of {held.trust_domain} has other keys than before and the same number {held.sequence}: two "
            "servers that disagree, or one that was restored from a backup; ask its operator, and if so: "
            f"mesh-ctl federation refresh {held.trust_domain} --accept-older"
        )
    return fetched


def _same_keys(one: TrustBundle, other: TrustBundle) -> bool:
    return set(one.roots) == set(other.roots) and set(one.jwt_authorities) == set(
        other.jwt_authorities
    )


def root_keys(bundle: TrustBundle) -> frozenset[str]:
    """By what :func:`apart` tells roots: the ids of their keys, whatever certificate each is in."""
    return frozenset(key_id(root.public_key()) for root in bundle.roots)


def apart(
    published: TrustBundle, own: Collection[str], holders: Mapping[str, TrustDomain]
) -> tuple[TrustBundle, tuple[Problem, ...]]:
    """What is to be believed of ``published``, and which of its roots are not, since they are held for somebody else.

    A root that names another trust domain has all of it refused, by :class:`ForeignRoot`, and so has one that is ours:
    ``own`` are the keys of our own roots, ``holders`` those of the other trust domains. One that is held for a third
    domain only loses its place. That domain may be the one that is lied about: were all of its bundle refused since
    another domain has been quicker to show its new root, then a root that it has removed would live on here.

    What nobody can notice: roots that say nothing of whose they are, and are held for nobody else. The server that is
    configured for a trust domain decides alone who speaks for it.
    """
    believed: list[x509.Certificate] = []
    problems: list[Problem] = []
    for root in published.roots:
        key = key_id(root.public_key())
        if key in own:
            raise ForeignRoot(
                f"the bundle of {published.trust_domain} has the root {subject_of(root)}, whose key is one of our own "
                "trust domain's roots: the URL leads to our own bundle, or its server mixes them up"
            )
        refuse_foreign(published.trust_domain, root)
        holder = holders.get(key, published.trust_domain)
        if holder == published.trust_domain:
            believed.append(root)
            continue
        problems.append(
            Problem(
                Code.FOREIGN_ROOT,
                f"the root {subject_of(root)} is held for {holder} already, and is not believed for "
                f"{published.trust_domain} besides",
                "ask both operators whose it is, and remove the one that has it wrongly; trust domains that do share a "
                "root need one each",
                "SPIFFE Trust Domain and Bundle section 6.2",
                "bundle",
            )
        )
    return evolve(published, roots=tuple(believed)), tuple(problems)
