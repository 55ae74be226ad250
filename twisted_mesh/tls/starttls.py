"""What is said in plain before TLS, where a protocol begins so: PostgreSQL, SMTP (RFC 3207), LDAP (RFC 4511)."""

from collections.abc import Callable, Mapping

from pki.errors import printable
from twisted_mesh.tls.conversation import Conversation

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
#: An ExtendedRequest for StartTLS, message 1 (RFC 4511 section 4.14.1).
_LDAP_REQUEST = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
_EXTENDED_RESPONSE = 0x78
_ENUMERATED = 0x0A


def postgres(talk: Conversation) -> None:
    """An SSLRequest. Of the answer just its one byte is read: what is before TLS is not to be believed."""
    talk.send(_SSL_REQUEST)
    answer = talk.exactly(1)
    if answer == b"N":
        raise talk.not_spoken("PostgreSQL answers there without TLS (ssl = off)")
    if answer != b"S":
        raise talk.not_spoken("what answers is no PostgreSQL")


def smtp(talk: Conversation) -> None:
    """EHLO and STARTTLS."""
    if not talk.reply().startswith(b"220"):
        raise talk.not_spoken("what answers is no mail server")
    talk.send(b"EHLO localhost\r\n")
    offered = talk.reply()
    if b"STARTTLS" not in offered.upper():
        raise talk.not_spoken("the mail server does not offer STARTTLS")
    talk.send(b"STARTTLS\r\n")
    answer = talk.reply()
    if not answer.startswith(b"220"):
        said = printable(answer.decode("latin-1").strip(), 100)
        raise talk.not_spoken(f"the mail server refuses STARTTLS: {said}")


def ldap(talk: Conversation) -> None:
    """The extended operation StartTLS. Only its result is looked at."""
    talk.send(_LDAP_REQUEST)
    tag, size = talk.exactly(2)
    if tag != 0x30:
        raise talk.not_spoken("what answers is no LDAP server")
    if size & 0x80:
        if size & 0x7F > 4:
            raise talk.not_spoken("what answers is no LDAP server")
        size = int.from_bytes(talk.exactly(size & 0x7F), "big")
    if not 7 <= size <= 4096:
        raise talk.not_spoken("what answers is no LDAP server")
    body = talk.exactly(size)
    at = 2 + body[1]  # the message's number
    if body[0] != 0x02 or body[at : at + 1] != bytes((_EXTENDED_RESPONSE,)):
        raise talk.not_spoken("what answers is no LDAP server")
    header = body[at + 1 : at + 2]
    at += 2 + (header[0] & 0x7F if header and header[0] & 0x80 else 0)
    result = body[at : at + 3]
    if result[:2] != bytes((_ENUMERATED, 1)):
        raise talk.not_spoken("what answers is no LDAP server")
    if result[2:] != b"\0":
        raise talk.not_spoken(f"the LDAP server refuses StartTLS (result {result[2]})")


#: By the names of ``--starttls``; each raises :class:`twisted_mesh.tls.conversation.Failed`.
STARTTLS: Mapping[str, Callable[[Conversation], None]] = {
    "postgres": postgres,
    "smtp": smtp,
    "ldap": ldap,
}
