"""Lints for what a template leaves open. They run on every draft; all else passed with its template."""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime

from attrs import frozen

from pki.errors import Problem
from pki.issuing.lint import (
    broken,
    critical_name_problems,
    own_identifier_problems,
    period_problems,
    serial_problems,
)
from pki.issuing.profile import Profile
from pki.issuing.template import Fields
from pki.keys import PublicKey, weaknesses
from pki.spiffe import SpiffeId
from pki.svid.names import DNS_NAME, IP_ADDRESS, NAMELESS, URI, IPAddress, subject_der
from pki.svid.x509svid import uri_problems
from pki.validity import Validity


@frozen
class Filled:
    """What stands in a template's gaps, read back out of the draft, and what it is held against."""

    fields: Fields
    is_nameless: bool
    """Whether the template is for an empty subject: its alternative name is critical."""
    issuers: Validity
    profile: Profile
    now: datetime
    public_key: PublicKey
    spki: bytes
    """Of ``public_key``."""
    spiffe_id: SpiffeId
    dns_names: Collection[str] = ()
    ip_addresses: Collection[IPAddress] = ()
    common_name: str = ""
    """What the subject has in place of the ID's last path segment."""

    @property
    def subject(self) -> str:
        """For people."""
        return str(self.spiffe_id)


def lint_template(filled: Filled) -> list[Problem]:
    """Every rule that the gaps break; empty when the draft may be signed."""
    return [problem for rule in _RULES for problem in rule(filled)]


def serial(d: Filled) -> Iterator[Problem]:
    """RFC 5280 section 4.1.2.2."""
    return serial_problems(d, d.fields.serial)


def validity(d: Filled) -> Iterator[Problem]:
    """RFC 5280 section 4.1.2.5."""
    return period_problems(d, d.fields.validity, d.issuers)


def subject(d: Filled) -> Iterator[Problem]:
    """That of the SPIFFE ID, and empty where the template is for that (RFC 5280 section 4.1.2.6)."""
    if d.fields.subject != subject_der(d.spiffe_id, d.common_name):
        yield broken(d, "the subject is not the one that was granted", "RFC 5280 section 4.1.2.6")
    yield from critical_name_problems(d, d.is_nameless, d.fields.subject == NAMELESS)


def public_key(d: Filled) -> Iterator[Problem]:
    """The key that was to be certified, not weak, and its identifier (RFC 5280 section 4.2.1.2)."""
    yield from weaknesses(d.public_key)
    if d.fields.spki != d.spki:
        yield broken(d, "the key is not the one to be certified", "RFC 5280 section 4.1.2.7")
    else:
        yield from own_identifier_problems(d, d.fields.key_identifier, d.fields.spki)


def alternative_names(d: Filled) -> Iterator[Problem]:
    """One SPIFFE ID with a path, the one that was granted, and the host names that were, in their order."""
    names = d.fields.names
    uris = [content.decode("ascii", "replace") for tag, content in names if tag == URI]
    dns_names = [content for tag, content in names if tag == DNS_NAME]
    ip_addresses = [content for tag, content in names if tag == IP_ADDRESS]
    yield from uri_problems(uris, lambda: d.subject)
    rule = "RFC 5280 section 4.2.1.6"
    if uris != [d.subject]:
        yield broken(d, "the URI name is not the SPIFFE ID that was granted", rule)
    if dns_names != [name.encode() for name in d.dns_names]:
        yield broken(d, "the DNS names are not those that were granted", rule)
    if ip_addresses != [address.packed for address in d.ip_addresses]:
        yield broken(d, "the IP addresses are not those that were granted", rule)
    if len(uris) + len(dns_names) + len(ip_addresses) != len(names):
        yield broken(d, "an alternative name is of another kind", rule)


_RULES: tuple[Callable[[Filled], Iterator[Problem]], ...] = (
    serial,
    validity,
    subject,
    public_key,
    alternative_names,
)
