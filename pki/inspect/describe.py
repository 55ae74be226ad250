"""What a certificate, CSR, CRL or OCSP response says, as data for people, whether or not it makes sense.

Nothing here is a verdict, nothing is printed, and every text is printable. What cannot be read hides
nothing but itself, and what was not checked is None.
"""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.errors import HOSTILE_INPUT, Malformed
from pki.inspect.certificate_reader import CertificateReader, name_of
from pki.inspect.contents import TRUSTED, Held, held
from pki.inspect.description import Description
from pki.pem import ANSWER, CERTIFICATE, CRL, REQUEST


def describe(data: bytes, now: datetime) -> tuple[Description, ...]:
    """Everything in a PEM or DER file, in its order, at least one thing.

    Private keys are named and not even decoded; so are other things that are none of these. What cannot be read
    is there with its reason among others that can. Raises :class:`Malformed`, and nothing else, where all cannot.
    """
    found: list[Description] = []
    lost: list[Malformed] = []
    for part in held(data):
        try:
            found.append(describe_part(part, now))
        except Malformed as error:
            lost.append(error)
            found.append(
                Description(name_of(part.label), remarks=(str(error),), unreadable=(str(error),))
            )
    if len(lost) == len(found):
        raise lost[0]
    return tuple(found)


def describe_certificate(cert: x509.Certificate, now: datetime) -> Description:
    """One certificate, as :func:`describe` tells of it in a file."""
    return CertificateReader(cert.public_bytes(Encoding.DER), CERTIFICATE).certificate(now)


def certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM or DER file, at least one, for who judges them. Raises :class:`Malformed`."""
    found, lost = readable_certificates(data)
    if lost:
        raise Malformed(lost[0])
    return found


def readable_certificates(
    data: bytes,
) -> tuple[tuple[x509.Certificate, ...], tuple[str, ...]]:
    """The certificates in a file that can be judged, and why each of the others cannot.

    At least one can, or :class:`Malformed` is raised.
    """
    parts = held(data)
    found: list[x509.Certificate] = []
    lost: list[str] = []
    for number, part in enumerate(parts, 1):
        place = f"block {number} of {len(parts)}: " if parts[1:] else ""
        try:
            if part.why:
                raise Malformed(part.why)
            if part.label in (CERTIFICATE, TRUSTED):
                found.append(_certificate(part))
        except Malformed as error:
            lost.append(f"{place}{error}")
    if not found:
        if lost:
            raise Malformed(lost[0])
        labels = ", ".join(dict.fromkeys(name_of(part.label) for part in parts))
        raise Malformed(f"it holds no certificate, but {labels}: give a certificate in PEM or DER")
    return tuple(found), tuple(lost)


def describe_part(part: Held, now: datetime) -> Description:
    """One thing of a file. Raises :class:`Malformed`."""
    if part.why:
        raise Malformed(part.why)
    name = name_of(part.label)
    if part.label in (CERTIFICATE, TRUSTED):
        return CertificateReader(part.der, part.label).certificate(now)
    if part.label == REQUEST:
        return CertificateReader(part.der, part.label).request()
    if part.label in (CRL, ANSWER):
        return _statement(name, part)
    return Description(name)


def _statement(name: str, part: Held) -> Description:
    # Where there is one only: who shows a certificate need not load it.
    from pki.inspect.crl_ocsp_facts import answer_statement, crl_statement

    said = crl_statement(part.der) if part.label == CRL else answer_statement(part.der)
    return Description(
        name,
        facts=said.facts,
        extensions=said.extensions,
        remarks=said.remarks,
        unreadable=said.unreadable,
    )


def _certificate(part: Held) -> x509.Certificate:
    """For a judge, who takes nothing but DER in the very form that RFC 5280 has."""
    try:
        return x509.load_der_x509_certificate(part.der)
    except HOSTILE_INPUT:
        pass
    # What can be shown is not damaged: it is refused for its form.
    shown = CertificateReader(part.der, part.label).certificate(datetime.max.replace(tzinfo=UTC))
    why = "; ".join(shown.remarks[:3]) or "its DER is not as RFC 5280 has it"
    raise Malformed(
        f"the form of a certificate in it is one that is not judged ({why}): have it issued anew, "
        "or look at it with pki-inspect show"
    )
