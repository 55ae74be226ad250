"""Lints for what logs of certificates add to a draft: the poison of its precertificate, the list of their SCTs.

All but that extension has been linted with the draft, so the rules see to it that nothing else has changed.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from cryptography import x509

from pki.codes import Code
from pki.ct.precertificate import without_poison, without_scts
from pki.ct.sct import SignedCertificateTimestamp, scts_of
from pki.errors import HOSTILE_INPUT, PkiError, Problem
from pki.issuing.profile import Profile
from pki.issuing.unsigned import assemble

_PRECERTIFICATE, _LIST = "RFC 6962 section 3.1", "RFC 6962 section 3.3"
_UNREADABLE: tuple[type[BaseException], ...] = (PkiError, *HOSTILE_INPUT)


class Drafted(Protocol):
    """The draft that was linted, without either extension."""

    @property
    def profile(self) -> Profile:
        """What it looks like."""
        ...

    @property
    def tbs(self) -> bytes:
        """What would be signed of it."""
        ...

    @property
    def algorithm(self) -> bytes:
        """The signature's AlgorithmIdentifier, in DER."""
        ...

    @property
    def subject(self) -> str:
        """For people."""
        ...


def lint_precertificate(tbs: bytes, draft: Drafted) -> list[Problem]:
    """Every rule that a precertificate of ``draft`` breaks; empty when it may be signed."""
    return [*_read(_precertificate, tbs, draft, ())]


def lint_final(
    tbs: bytes, draft: Drafted, scts: Sequence[SignedCertificateTimestamp]
) -> list[Problem]:
    """Every rule that ``draft`` with these SCTs breaks; empty when it may be signed."""
    return [*_read(_final, tbs, draft, scts)]


def _read(
    rules: "_Rules", tbs: bytes, draft: Drafted, scts: Sequence[SignedCertificateTimestamp]
) -> Iterator[Problem]:
    try:
        yield from _names_somebody(draft)
        yield from rules(tbs, draft, scts)
    except _UNREADABLE as error:
        yield _broken(draft, f"it cannot be decoded ({error})", _PRECERTIFICATE)


def _names_somebody(draft: Drafted) -> Iterator[Problem]:
    """Logs are shown what names a workload, and nothing else."""
    if draft.profile.is_ca or draft.profile.is_responder:
        detail = f"a certificate of the profile {draft.profile.name} is not shown to logs"
        yield _broken(draft, detail, _PRECERTIFICATE)


class _Rules(Protocol):
    def __call__(
        self, tbs: bytes, draft: Drafted, scts: Sequence[SignedCertificateTimestamp]
    ) -> Iterator[Problem]: ...


def _precertificate(
    tbs: bytes, draft: Drafted, scts: Sequence[SignedCertificateTimestamp]
) -> Iterator[Problem]:
    *_, last = x509.load_der_x509_certificate(assemble(tbs, draft.algorithm)).extensions
    if not isinstance(last.value, x509.PrecertPoison) or not last.critical:
        yield _broken(draft, "the last extension is not the poison, critical", _PRECERTIFICATE)
    if without_poison(tbs) != draft.tbs:
        yield _broken(draft, "more than the poison differs from the draft", _PRECERTIFICATE)


def _final(
    tbs: bytes, draft: Drafted, scts: Sequence[SignedCertificateTimestamp]
) -> Iterator[Problem]:
    # Read by cryptography as well: what a log has made up must not keep endpoints from reading the certificate.
    found = x509.load_der_x509_certificate(assemble(tbs, draft.algorithm))
    *_, last = found.extensions
    listed = last.value
    if not isinstance(listed, x509.PrecertificateSignedCertificateTimestamps) or last.critical:
        yield _broken(draft, "the last extension is not the list of SCTs, not critical", _LIST)
    elif not scts or [one.log_id for one in listed] != [one.log_id for one in scts]:
        yield _broken(draft, "the list does not have the SCTs that were obtained", _LIST)
    if scts_of(found) != tuple(scts):
        yield _broken(draft, "the SCTs are not those that were obtained", _LIST)
    if len({one.log_id for one in scts}) != len(scts):
        yield _broken(draft, "two SCTs are of one log", _LIST)
    if without_scts(tbs) != draft.tbs:
        yield _broken(draft, "more than the SCTs differs from the draft", _PRECERTIFICATE)


def _broken(draft: Drafted, detail: str, rule: str) -> Problem:
    return Problem(Code.LINT, detail, "this is a bug of the CA: report it", rule, draft.subject)
