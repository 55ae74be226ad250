"""What a monitor watches for in each certificate: a pure decision, made a million times."""

import re
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from pki.errors import discreet
from pki.validity import rfc3339
from twisted_mesh.monitor.alert import AlertKind
from twisted_mesh.monitor.certificate_facts import CertificateFacts, shown_serial
from twisted_mesh.monitor.index import moment
from twisted_mesh.monitor.name_pattern import NamePattern

_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|\Z))[a-zA-Z0-9._-]+)*", re.ASCII)


@frozen
class ExpectedKeys:
    """Which keys the certificates of some names are for."""

    pattern: NamePattern
    keys: frozenset[bytes]


@frozen
class WatchList:
    """What is worth an alert."""

    names: Sequence[NamePattern] = ()
    """Every certificate with such a name."""
    except_for: Sequence[NamePattern] = ()
    """But not with such a one."""
    issuers: frozenset[bytes] = frozenset()
    """SHA-256 of the keys of those that may issue; empty for all."""
    keys: Sequence[ExpectedKeys] = ()

    def judge(self, facts: CertificateFacts, issuer: bytes) -> Iterable[tuple[AlertKind, str]]:
        """Every alert about one certificate, in words; for most there is none."""
        uris = facts.uris
        if (
            not facts.is_ca
            and not self.names
            and not self.keys
            and (not self.issuers or issuer in self.issuers)
            and (not uris or (len(uris) == 1 and _ID.fullmatch(uris[0])))
        ):
            return ()
        return self._against(facts, issuer)

    def _against(self, facts: CertificateFacts, issuer: bytes) -> Iterator[tuple[AlertKind, str]]:
        names = (*facts.uris, *facts.dns_names)
        named = ", ".join((*names, *facts.ip_addresses)) or "nobody"
        if self.issuers and issuer not in self.issuers:
            yield (
                AlertKind.UNEXPECTED_ISSUER,
                f"a certificate for {named} was issued by the key {issuer.hex()}, which is not expected to issue any: "
                "find out whose it is",
            )
        if facts.is_ca:
            yield (
                AlertKind.CA_CERTIFICATE,
                f"a certificate that may issue others was made by the key {issuer.hex()}: compare "
                "with mesh-ctl ca show",
            )
        for uri in facts.uris:
            if len(facts.uris) > 1 or not _ID.fullmatch(uri):
                if not uri.lower().startswith("spiffe:"):
                    continue
                yield (
                    AlertKind.ODD_NAME,
                    f"{discreet(uri, 200)} stands in a certificate that no endpoint should take: it is no SPIFFE "
                    "ID, or not the only one",
                )
        for pattern in self.names:
            found = [name for name in names if pattern.matches(name)]
            found = [n for n in found if not any(but.matches(n) for but in self.except_for)]
            if found:
                yield (
                    AlertKind.NAME_SEEN,
                    f"a certificate for {', '.join(found)} is in the log, which {pattern} watches for",
                )
        for expected in self.keys:
            if facts.key not in expected.keys and any(map(expected.pattern.matches, names)):
                yield (
                    AlertKind.UNEXPECTED_KEY,
                    f"a certificate for {named} is for the key {facts.key.hex()}, which is none of those expected for "
                    f"{expected.pattern}",
                )


def certificate_told(facts: CertificateFacts, issuer: bytes, position: int) -> dict[str, str | int]:
    """What an alert says of a certificate."""
    return {
        "position": position,
        "spiffe_id": facts.spiffe_id,
        "names": ", ".join((*facts.uris, *facts.dns_names, *facts.ip_addresses)),
        "serial": shown_serial(facts.serial),
        "issuer": issuer.hex(),
        "key": facts.key.hex(),
        "not_before": rfc3339(moment(facts.not_before)),
        "not_after": rfc3339(moment(facts.not_after)),
    }
