"""A signer's policy: which trust domain, which names, how long, how far from its own clock. Read from TOML."""

import tomllib
from collections.abc import Callable
from datetime import timedelta
from typing import Self, TypeVar

import msgspec
from attrs import frozen

from pki.codes import Code
from pki.crl.schedule import RESPONDER_LIFE
from pki.ct.log_key import LogKey
from pki.errors import PkiError, Problem, Refused, discreet
from pki.issuing.profile import ISSUING, ROOT, WORKLOAD
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.names import is_address, is_dns_name
from pki.svid.spki_pin import SpkiHash
from pki.validity import parse_lifetime

#: The version of the files.
VERSION = 1
#: Bytes of a policy file, at most.
LARGEST_POLICY = 64 * 1024
_MOST_KEYS = 64

_T = TypeVar("_T")


class BadSigningPolicy(Refused):
    """A policy file that cannot be used; ``problems`` say why."""

    code = Code.BAD_SIGNING_POLICY


class _File(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    version: int
    trust_domain: str
    names: list[str] = []
    dns_names: list[str] | None = None
    ip_addresses: bool = True
    publication: list[str] | None = None
    roots: list[str] = []
    log_keys: list[str] = []
    require_sct: int = 0
    max_cert_duration: str = ""
    max_responder_duration: str = ""
    max_issuing_duration: str = ""
    max_root_duration: str = ""
    max_crl_duration: str = ""
    max_root_crl_duration: str = ""
    clock_skew: str = ""
    max_keys: int = _MOST_KEYS


@frozen
class SigningPolicy:
    """What is signed. The defaults are those of a CA of ours with its own defaults."""

    trust_domain: TrustDomain
    names: tuple[SpiffePattern, ...] = ()
    """Whom a certificate may name; empty for everybody in the trust domain."""
    dns_names: tuple[str, ...] | None = None
    """The host names that certificates may have: ``localhost``, ``*.mesh.local`` for any below; None for all."""
    ip_addresses: bool = True
    """Whether certificates may have addresses."""
    publication: tuple[str, ...] | None = None
    """What the URLs in certificates begin with; None for any."""
    roots: frozenset[SpkiHash] = frozenset()
    """Keys of roots that are not held by the signer and may stand in a document of the roots."""
    log_keys: tuple[LogKey, ...] = ()
    """Of the logs whose SCTs count."""
    require_sct: int = 0
    """How many a workload's certificate must have, each of another of these logs; 0 for none."""
    max_cert_duration: timedelta = WORKLOAD.lifetime
    max_responder_duration: timedelta = RESPONDER_LIFE
    max_issuing_duration: timedelta = ISSUING.lifetime
    max_root_duration: timedelta = ROOT.lifetime
    max_crl_duration: timedelta = timedelta(hours=25)
    """Of an issuing CA's list, from now to its next update."""
    max_root_crl_duration: timedelta = timedelta(days=400)
    clock_skew: timedelta = timedelta(minutes=1)
    """How far what is signed may begin from the signer's own time."""
    max_keys: int = _MOST_KEYS
    """How many keys the signer makes in all."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The policy in a TOML file. Raises :class:`BadSigningPolicy` with all that is wrong."""
        try:
            found = msgspec.convert(tomllib.loads(text), _File)
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise BadSigningPolicy(
                [_problem(f"it is no policy of a signer: {discreet(str(error), 200)}")]
            ) from None
        reader = _Reader()
        if found.version != VERSION:
            reader.problems.append(
                _problem(f"version is {found.version}, and this program reads {VERSION}")
            )
        domain = reader.read("trust-domain", TrustDomain.parse, found.trust_domain)
        names = [reader.read("names", SpiffePattern.parse, name) for name in found.names]
        roots = [reader.read("roots", SpkiHash.parse, pin) for pin in found.roots]
        logs = [reader.read("log-keys", LogKey.parse, key) for key in found.log_keys]
        durations = {
            name: reader.read(name.replace("_", "-"), parse_lifetime, text)
            for name in _DURATIONS
            if (text := getattr(found, name))
        }
        if domain is not None:
            reader.problems += [
                _problem(f"names: {name} is not of {domain}")
                for name in names
                if name is not None and name.trust_domain != domain
            ]
        if not 1 <= found.max_keys <= 10_000:
            reader.problems.append(_problem("max-keys is from 1 to 10000"))
        if not 0 <= found.require_sct <= len(set(found.log_keys)):
            reader.problems.append(
                _problem(
                    f"require-sct is {found.require_sct}, and there are {len(set(found.log_keys))} log-keys: a "
                    "certificate has one SCT of each log at most"
                )
            )
        elif found.log_keys and not found.require_sct:
            reader.problems.append(
                _problem("log-keys goes with require-sct: how many have to sign")
            )
        if reader.problems or domain is None:
            raise BadSigningPolicy(reader.problems)
        return cls(
            domain,
            tuple(name for name in names if name is not None),
            None if found.dns_names is None else tuple(map(str.lower, found.dns_names)),
            found.ip_addresses,
            None if found.publication is None else tuple(found.publication),
            frozenset(pin for pin in roots if pin is not None),
            log_keys=tuple(dict.fromkeys(log for log in logs if log is not None)),
            require_sct=found.require_sct,
            max_keys=found.max_keys,
            **{name: value for name, value in durations.items() if value is not None},
        )

    def allows_id(self, spiffe_id: SpiffeId) -> bool:
        """Whether a certificate may name that workload."""
        if spiffe_id.trust_domain != self.trust_domain:
            return False
        return not self.names or any(pattern.matches(spiffe_id) for pattern in self.names)

    def allows_host(self, name: str) -> bool:
        """Whether a certificate may have that host name."""
        if self.dns_names is None:
            return True
        name = name.lower()
        return any(
            name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))
            for allowed in self.dns_names
        )

    def allows_common_name(self, name: str) -> bool:
        """Whether a certificate may have that common name, which may be taken for a host's or an address."""
        if is_address(name):
            return self.ip_addresses
        is_host = "." in name and is_dns_name(name.lower())
        return not is_host or self.allows_host(name)

    def allows_url(self, url: str) -> bool:
        """Whether a certificate may say that its CA publishes there: no host's name goes on where ours ends."""
        return self.publication is None or any(
            url.startswith(allowed)
            and ("/" in allowed.partition("://")[2] or url[len(allowed) :][:1] in {"", "/", "?"})
            for allowed in self.publication
        )


_DURATIONS = (
    "max_cert_duration",
    "max_responder_duration",
    "max_issuing_duration",
    "max_root_duration",
    "max_crl_duration",
    "max_root_crl_duration",
    "clock_skew",
)


class _Reader:
    """Collects all that is wrong."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def read(self, field: str, parse: Callable[[str], _T], text: str) -> _T | None:
        try:
            return parse(text)
        except PkiError as error:
            self.problems.append(_problem(f"{field}: {error}"))
        return None


def _problem(detail: str) -> Problem:
    return Problem(Code.BAD_SIGNING_POLICY, detail, "mend the file of --policy")
