"""What to do where a CA of somebody else's has made a certificate that cannot stand above ours, in its own words."""

from enum import StrEnum
from typing import Self


class Remedy(StrEnum):
    """A remedy, and the rule that wants it."""

    rule: str

    def __new__(cls, text: str, rule: str) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.rule = rule
        return member

    ANEW = "have it issued anew, as a certificate of version 3", "RFC 5280 section 4.1"
    ROOT = (
        "name the root's own certificate: mesh-ctl ca root offline shows where ours is; of another CA ask its people",
        "RFC 5280 section 3.2",
    )
    ANOTHER = "bring another root, with a key of its own", "RFC 5280 section 6.1"
    GENERATION = (
        "make it with the generation that comes next: mesh-ctl ca root offline --generation",
        "RFC 5280 section 6.1",
    )
    SUBJECT = (
        "have the CSR's subject kept: openssl ca -preserveDN, or policy_anything; step-ca: a template with "
        '"subject": {{ toJson .Insecure.CR.Subject }}; OpenBao: sign-intermediate with use_csr_values=true; '
        "AD CS: a template whose subject is supplied in the request",
        "RFC 5280 section 4.1.2.6",
    )
    NAMES = (
        "have the CSR's one URI copied, or no name at all: openssl: copy_extensions = copy; step-ca: "
        '"sans": {{ toJson .SANs }} in the template; OpenBao: use_csr_values=true; AD CS: supplied in the request',
        "X509-SVID section 3.2",
    )
    CONSTRAINTS = (
        "openssl: basicConstraints = critical,CA:true,pathlen:0 and keyUsage = critical,keyCertSign,cRLSign in the "
        "section of -extensions; step-ca: a template with isCA, maxPathLen 0, certSign and crlSign; OpenBao: "
        "sign-intermediate; AD CS: the template Subordinate Certification Authority",
        "RFC 5280 sections 4.2.1.3 and 4.2.1.9",
    )
    LENGTH = (
        "openssl: basicConstraints = critical,CA:true,pathlen:0; step-ca: maxPathLen 0; OpenBao: max_path_length=0; "
        "cfssl: max_path_len 0 and max_path_len_zero; AD CS: tick that the subject may not issue to other CAs",
        "RFC 5280 section 4.2.1.9",
    )
    ABOVE = (
        "a CA with room below it has to sign: its own path length is the number of CAs between it and our leaves, or "
        "none is set; ask for a certificate from one that stands higher",
        "RFC 5280 section 4.2.1.9",
    )
    USAGES = (
        "openssl: keyUsage = critical,keyCertSign,cRLSign; step-ca: certSign and crlSign; OpenBao: sign-intermediate; "
        "cfssl: cert sign and crl sign; AD CS: the template Subordinate Certification Authority",
        "RFC 5280 section 4.2.1.3",
    )
    EXTENDED = (
        "leave extended key usages out of CA certificates, or let them have both serverAuth and clientAuth; openssl: "
        "no extendedKeyUsage; step-ca: no extKeyUsage; AD CS: no application policies in the template",
        "RFC 5280 section 4.2.1.12",
    )
    EXTENSIONS = (
        "have it issued without that extension, or without its being critical: endpoints refuse what they do not "
        "understand; AD CS: no policy constraints in CAPolicy.inf",
        "RFC 5280 section 4.2",
    )
    NAME_CONSTRAINTS = (
        "have our branch certified by a CA without them: openssl: no nameConstraints; step-ca: no nameConstraints in "
        "the template; OpenBao: no permitted_dns_domains; AD CS: none in CAPolicy.inf",
        "RFC 5280 section 4.2.1.10",
    )
    IDENTIFIERS = (
        "openssl: subjectKeyIdentifier = hash and authorityKeyIdentifier = keyid:always, for each CA; step-ca, OpenBao "
        "and AD CS do so by themselves, for CAs that are not from before RFC 5280",
        "RFC 5280 sections 4.2.1.1 and 4.2.1.2",
    )
    STRENGTH = (
        "no key of that kind, and no SHA-1, may be in the chain, the root's own signature included: ask for one from a "
        "newer CA",
        "RFC 5280 section 4.1.1.2",
    )
    LIFE = (
        "openssl: -days; step-ca: --not-after; OpenBao: ttl; AD CS: certutil -setreg CA\\ValidityPeriodUnits; within "
        "what the CAs above have left",
        "RFC 5280 section 4.1.2.5",
    )
    COST = (
        "ask for a chain with fewer CAs, or with keys of P-256 or RSA: P-384 takes longest",
        "RFC 5280 section 6.1",
    )
