"""The judge of a signer: what is this that is to be signed, and may this key sign it?

Data is recognised by its first bytes alone, each kind is then parsed whole and laid out anew: no bytes are two kinds.
"""

from datetime import datetime

from pki.der import INTEGER, SEQUENCE, elements
from pki.errors import HOSTILE_INPUT, Malformed
from pki.signing.certificate import judge_certificate
from pki.signing.crl import judge_crl
from pki.signing.errors import NotSignable
from pki.signing.memory import HeldKey, Memory, Verdict
from pki.signing.ocsp import judge_answer_data
from pki.signing.policy import SigningPolicy
from pki.signing.request import judge_request
from pki.signing.text import PROBE, judge_checkpoint, judge_statement

#: Tags: a certificate's version, and the two ways in which an OCSP answer names its responder.
_VERSION, _BY_NAME, _BY_KEY = 0xA0, 0xA1, 0xA2
_V2, _V1 = b"\1", b"\0"


def judge(
    data: bytes, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    """Whether ``key`` signs ``data``. Raises :class:`NotSignable` and :class:`SigningRefused`."""
    try:
        return _judge(data, key, policy, memory, now)
    except HOSTILE_INPUT as error:
        # What no rule has thought of, such as a number of ten thousand digits: it ends nothing but itself.
        raise NotSignable(f"it cannot be judged ({type(error).__name__})") from None


def _judge(
    data: bytes, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    if key.purpose == "audit":
        return _judge_text(data, key, policy, memory, now)
    if data[:1] != bytes((SEQUENCE,)):
        return _judge_text(data, key, policy, memory, now)
    first, content = _outline(data)
    if first == _VERSION:
        return judge_certificate(data, key, policy, memory, now)
    if first in (_BY_NAME, _BY_KEY):
        return judge_answer_data(data, key, policy, memory, now)
    if first == INTEGER and content == _V2:
        return judge_crl(data, key, policy, memory, now)
    if first == INTEGER and content == _V1:
        return judge_request(data, key, policy)
    raise NotSignable(
        "it is DER, and no certificate of version 3, no CRL of version 2, no OCSP answer and no CSR"
    )


def _outline(data: bytes) -> tuple[int, bytes]:
    """The tag and the content of the first element in the only one that there is."""
    try:
        (whole,) = elements(data)
        first = next(elements(whole.content))
    except (Malformed, ValueError, StopIteration):
        raise NotSignable("it is neither whole DER nor a text that a signer signs") from None
    return first.tag, first.content


def _judge_text(
    data: bytes, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NotSignable(
            "it is neither a certificate, a CRL, an OCSP answer, a CSR nor a text: a signer signs nothing else, and "
            "never a digest"
        ) from None
    if key.purpose != "audit":
        return judge_statement(text, key, policy, memory)
    if text.startswith(PROBE):
        return judge_statement(text, key, policy, memory)
    return judge_checkpoint(text, key, policy, memory, now)
