"""Evidence: what CRLs and OCSP answers in files say about a chain, and of which of it they say nothing."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from attrs import field, frozen
from cryptography import x509

from pki.codes import Code
from pki.crl.crl import BadCrl, Crl, crls_in, find_issuer, issuer_name, read_crl
from pki.der import SEQUENCE, blocks
from pki.errors import Malformed, Problem
from pki.keys import key_id
from pki.ocsp.response import Answer, is_about, read_answer
from pki.pem import ANSWER, is_pem, listed
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.x509svid import subject_of


@frozen(eq=False, repr=False)
class Evidence:
    """CRLs, and answers by the certificates that they are about; all of them were found good to rely on."""

    crls: tuple[Crl, ...] = ()
    answers: Mapping[x509.Certificate, Answer] = field(factory=dict)

    def revocations(self, now: datetime) -> RevocationSet:
        """Everything that they say is revoked."""
        found = RevocationSet()
        for crl in self.crls:
            found = found.merged(crl, now)
        said = (answer.revocation for answer in self.answers.values())
        return found.merged((revocation for revocation in said if revocation), now)

    def problems(self, path: Sequence[x509.Certificate]) -> list[Problem]:
        """A problem for each certificate of ``path``, leaf first, of which it ought to be known.

        Once there is a CRL, that is every one that has its issuer there; with answers alone, the leaf.
        """
        links = list(pairwise(path))
        if not self.crls:
            links = links[:1] if self.answers else []
        return [_unknown(cert, issuer) for cert, issuer in links if not self._knows(cert, issuer)]

    def _knows(self, cert: x509.Certificate, issuer: x509.Certificate) -> bool:
        if cert in self.answers:
            return True
        name = key_id(issuer.public_key())
        return any(crl.issuer == name and crl.covers(cert) for crl in self.crls)


def crls_from(
    data: bytes, candidates: Iterable[x509.Certificate], now: datetime
) -> tuple[Crl, ...]:
    """Every CRL in a PEM or DER file, each of which must be of one of the candidates, and good.

    Raises :class:`Malformed` and :class:`pki.crl.crl.BadCrl`.
    """
    issuers = list(candidates)
    found = []
    for der in crls_in(data):
        issuer = find_issuer(der, issuers)
        if issuer is None:
            raise Malformed(
                f"it is the CRL of {issuer_name(der)}, of which no certificate was given: "
                "give that CA's among the intermediates or roots"
            )
        found.append(read_crl(der, issuer, now=now))
    return tuple(found)


@frozen
class ListInForce:
    """What is remembered of a CRL whose entries are believed."""

    issuer: str
    """The issuer's :func:`pki.keys.key_id`."""
    subject: str
    number: int | None
    next_update: datetime
    size: int


def lists_from(
    data: bytes,
    candidates: Sequence[x509.Certificate],
    now: datetime,
    *,
    seen: Mapping[str, int],
    known: RevocationSet,
) -> tuple[tuple[ListInForce, ...], tuple[Revocation, ...]]:
    """The same, for whoever reads one place again and again: the lists, and what is in them and not ``known``.

    ``seen`` has the highest number that was seen there of each issuer, by its key id. Raises
    :class:`Malformed` and :class:`pki.crl.crl.BadCrl`. A million entries take some seconds.
    """
    lists: list[ListInForce] = []
    news: list[Revocation] = []
    for der in crls_in(data):
        issuer = find_issuer(der, candidates)
        if issuer is None:
            raise BadCrl([_of_a_stranger(der)])
        name = key_id(issuer.public_key())
        crl = read_crl(der, issuer, now=now, seen=seen.get(name))
        news.extend(entry for entry in crl if known.find(name, entry.serial) is None)
        subject = subject_of(issuer)
        lists.append(ListInForce(name, subject, crl.number, crl.next_update, len(crl)))
    return tuple(lists), tuple(news)


def answers_from(
    data: bytes, path: Sequence[x509.Certificate], now: datetime
) -> dict[x509.Certificate, Answer]:
    """What an OCSP response in DER or PEM says about certificates of ``path``, leaf first; about one at least.

    Raises :class:`Malformed` and :class:`pki.ocsp.response.BadAnswer`.
    """
    in_der = data[:1] == bytes((SEQUENCE,)) and not is_pem(data)
    ders = (data,) if in_der else _answers_in(data)
    found = {}
    for der in ders:
        about = [pair for pair in pairwise(path) if is_about(der, *pair)]
        if not about:
            raise Malformed("it is an OCSP answer about no certificate of this chain")
        for cert, issuer in about:
            found[cert] = read_answer(der, cert, issuer, now=now)
    return found


def _answers_in(data: bytes) -> tuple[bytes, ...]:
    held = blocks(data)
    found = tuple(block.der for block in held if block.label == ANSWER)
    if not found:
        raise Malformed(
            f"it holds no OCSP response but {listed(block.label for block in held)}: give one in DER"
        )
    return found


def _of_a_stranger(der: bytes) -> Problem:
    return Problem(
        Code.CRL_OTHER_ISSUER,
        f"it is the CRL of {issuer_name(der)}, of which no certificate is known here",
        "give that CA's certificate with --crl-issuer",
        "RFC 5280 section 6.3.3 (b)",
        "CRL",
    )


def _unknown(cert: x509.Certificate, issuer: x509.Certificate) -> Problem:
    return Problem(
        Code.UNKNOWN_REVOCATION,
        f"no CRL or OCSP answer of {subject_of(issuer)} says whether it is revoked",
        "give that CA's current CRL too",
        "RFC 5280 section 6.3.3",
        subject_of(cert),
    )
