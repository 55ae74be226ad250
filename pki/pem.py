"""PEM as it comes from people's hands (RFC 7468): the one reader for certificates, keys, CSRs, CRLs and answers.

A file may be glued together, have lost its line breaks, have gained others, be indented or stand in the midst of
words. What is told of a file that cannot be read never has a piece of it, but for labels: it may be a private key.
"""

import binascii
import re
from collections.abc import Iterable, Iterator

from attrs import field, frozen

from pki.errors import Malformed

CERTIFICATE = "CERTIFICATE"
REQUEST = "CERTIFICATE REQUEST"
PRIVATE_KEY = "PRIVATE KEY"
ENCRYPTED_KEY = "ENCRYPTED PRIVATE KEY"
PUBLIC_KEY = "PUBLIC KEY"
CRL = "X509 CRL"
ANSWER = "OCSP RESPONSE"

#: What else a label is called; and of its words that there are spaces between them, as long as nobody has taken
#: them out.
_LABELS = {
    "X509 CERTIFICATE": CERTIFICATE,
    "NEW CERTIFICATE REQUEST": REQUEST,
    "NEWCERTIFICATEREQUEST": REQUEST,
    **{
        label.replace(" ", ""): label
        for label in (
            REQUEST,
            PRIVATE_KEY,
            ENCRYPTED_KEY,
            "RSA PRIVATE KEY",
            "EC PRIVATE KEY",
            PUBLIC_KEY,
            CRL,
            ANSWER,
        )
    },
}
_BOUNDARY = re.compile(rb"-----(BEGIN|END)[ \t]{0,8}([A-Z0-9 \t]{0,64})-----")
#: RFC 1421's header lines, and those of a key that OpenSSL has encrypted in its old way, on however many lines.
_LEGACY = re.compile(
    rb"\s*Proc-Type:\s*4,\s*ENCRYPTED\s*DEK-Info:\s*"
    rb"((?:AES|CAMELLIA)-\d+-CBC,[0-9A-Fa-f]{32}|[A-Z0-9-]+,[0-9A-Fa-f]{16})"
)
_HEADERS = re.compile(
    rb"(?:[ \t]*[A-Za-z][A-Za-z0-9-]*:[^\r\n]*(?:\r\n|\n|\r)(?:[ \t]*(?:\r\n|\n|\r))?)+"
)
#: What is not seen: a byte order mark, a space that does not break, one without width.
_BLANK = re.compile(rb"\xef\xbb\xbf|\xc2\xa0|\xe2\x80\x8b")
#: A line break that was written as two characters.
_ESCAPED = re.compile(rb"\\r|\\n")
_SPACES = b" \t\n\r\f\v"
_NOT_BASE64 = re.compile(rb"\s+|%b|%b" % (_BLANK.pattern, _ESCAPED.pattern))
_WIDE = ((b"\xff\xfe", b"\xfe\xff"), (b"-\0-\0-\0-", b"\0-\0-\0-"), (b"-\0\0\0-\0\0\0",))

_NAMES = {
    CERTIFICATE: "a certificate",
    "TRUSTED CERTIFICATE": "a certificate with OpenSSL's trust settings",
    REQUEST: "a CSR",
    CRL: "a CRL",
    ANSWER: "an OCSP response",
    PUBLIC_KEY: "a public key",
    "RSA PUBLIC KEY": "a public key",
    "PKCS7": "a PKCS #7 file",
    "CMS": "a PKCS #7 file",
    "PKCS12": "a PKCS #12 file",
    "ASN.1": "DER of another kind",
    "OPENSSH PRIVATE KEY": "a private key in OpenSSH's format",
}


@frozen
class Section:
    """What stands between a BEGIN line and its END line. The ``repr`` shows no content: it may be a private key."""

    label: str
    """Capitals, digits and single spaces, at most 64: nothing else is ever shown of a file."""
    text: bytes = field(repr=False)
    """Base64 without what is not seen."""
    headers: tuple[bytes, ...] = field(default=(), repr=False)

    def der(self) -> bytes:
        """What it encodes. Raises :class:`Malformed`."""
        try:
            return binascii.a2b_base64(self.text, strict_mode=True)
        except binascii.Error:
            raise Malformed(
                f"the base64 of its PEM block {self.label} is damaged: copy the file anew, whole and unchanged"
            ) from None

    def pem(self) -> bytes:
        """The same as everybody's reader takes it."""
        headers = b"".join(b"%b\n" % line for line in self.headers) + b"\n" * bool(self.headers)
        lines = b"\n".join(self.text[at : at + 64] for at in range(0, len(self.text), 64))
        name = self.label.encode("ascii")
        return b"-----BEGIN %b-----\n%b%b\n-----END %b-----\n" % (name, headers, lines, name)


def sections(data: bytes) -> tuple[Section, ...]:
    """The PEM blocks in ``data``, in their order; none where there is no sign of PEM. Raises :class:`Malformed`."""
    head = data[:4096]
    has_null = b"\0" in head
    if has_null and any(mark in head for mark in _WIDE[2]):
        raise Malformed(_wide("UTF-32"))
    if data.startswith(_WIDE[0]) or (has_null and any(mark in head for mark in _WIDE[1])):
        raise Malformed(_wide("UTF-16"))
    return tuple(_sections(data))


def is_pem(data: bytes) -> bool:
    """Whether something in it says that it is PEM."""
    return _BOUNDARY.search(data) is not None


def named(label: str) -> str:
    """What a label says, in words, with its article."""
    if label in _NAMES:
        return _NAMES[label]
    if label == ENCRYPTED_KEY:
        return "an encrypted private key"
    if label.endswith(PRIVATE_KEY):
        return "a private key"
    return f"something of the kind {label}" if label else "something without a label"


def listed(labels: Iterable[str]) -> str:
    """What a file holds, in words: ``a certificate and a private key``."""
    *most, last = dict.fromkeys(map(named, labels))
    return f"{', '.join(most)} and {last}" if most else last


def resemblance(data: bytes) -> str:
    """What a file that is neither PEM nor DER is, as far as its first bytes tell; else an empty string."""
    start = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if not data.strip(b"\0 \t\r\n"):
        return "it holds nothing but blanks or NULs"
    for mark, what in _RESEMBLANCES:
        if start.startswith(mark):
            return what
    if b"-----BEGIN" in data or b"-----END" in data:
        return "the dashes or capitals of its BEGIN and END lines are damaged"
    if b"BEGIN" in data[:256] and b"-" in data[:256]:
        return "its BEGIN line has lost some of its dashes: there are five at each end"
    if data.strip().startswith((b"MII", b"LS0tLS1CRUdJTi")):
        return "it is base64 alone: it has lost its BEGIN and END lines, or was encoded once more"
    return ""


_RESEMBLANCES = (
    (b"{", "it is JSON"),
    (b"<", "it is HTML or XML"),
    (b"ssh-", "it is a public key of SSH"),
    (b"ecdsa-sha2-", "it is a public key of SSH"),
    (b"\x1f\x8b", "it is compressed by gzip"),
    (b"pk\x03\x04", "it is a ZIP archive"),
    (b"\xfe\xed\xfe\xed", "it is a Java keystore"),
)


def _wide(encoding: str) -> str:
    return (
        f"it is text in {encoding}, as PowerShell's > writes it, and PEM is ASCII: convert it (iconv -f {encoding} "
        "-t ASCII FILE > NEW; in PowerShell: Set-Content -Encoding ascii)"
    )


def _sections(data: bytes) -> Iterator[Section]:
    label: str | None = None
    start = 0
    for found in _BOUNDARY.finditer(data):
        begins, name = found[1] == b"BEGIN", _label(found[2])
        if label is None:
            if begins:
                label, start = name, found.end()
            continue
        if begins or name != label:
            break
        yield _section(label, data[start : found.start()])
        label = None
    if label is not None:
        raise Malformed(
            f"its PEM block {label} has no end: the file is damaged or cut short; copy it anew"
        )


def _label(text: bytes) -> str:
    label = " ".join(text.decode("ascii").split())
    return _LABELS.get(label, label)


def _section(label: str, body: bytes) -> Section:
    headers: tuple[bytes, ...] = ()
    if b":" in body:
        body = _ESCAPED.sub(b"\n", _BLANK.sub(b" ", body))
        if (legacy := _LEGACY.match(body)) is not None:
            headers = (b"Proc-Type: 4,ENCRYPTED", b"DEK-Info: " + legacy[1])
            body = body[legacy.end() :]
        elif (other := _HEADERS.match(body.lstrip())) is not None:
            body = body.lstrip()[other.end() :]
    is_plain = body.isascii() and b"\\" not in body
    text = body.translate(None, _SPACES) if is_plain else _NOT_BASE64.sub(b"", body)
    return Section(label, text, headers)
