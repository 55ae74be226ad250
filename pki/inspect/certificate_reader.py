"""Certificates and CSRs read part by part: one that cannot be read hides no other."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime

from cryptography import x509

from pki.der import BIT_STRING, INTEGER, SEQUENCE
from pki.errors import HOSTILE_INPUT, Malformed, printable
from pki.inspect.ber import (
    Node,
    bits_of,
    damage,
    expect,
    first,
    integer_of,
    leading,
    oid_of,
    only,
)
from pki.inspect.contents import TRUSTED
from pki.inspect.description import Description
from pki.inspect.extensions import Extension
from pki.inspect.name_text import hex_pairs, string_text
from pki.inspect.oid_names import EXTENSION_REQUESTS, REQUEST_ATTRIBUTES
from pki.inspect.own_signature import Checked, algorithm_text, check
from pki.inspect.public_key import read_public_key
from pki.inspect.remarks import UNREADABLE, Remarks
from pki.pem import ANSWER, CERTIFICATE, CRL, PRIVATE_KEY, REQUEST
from pki.spiffe import NotASpiffeId, SpiffeId

_BASIC_CONSTRAINTS = "2.5.29.19"
_SUBJECT_ALT_NAME = "2.5.29.17"
_CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"  # noqa: S105  an OID
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UNIQUE_IDS = {0x81: "issuerUniqueID", 0x82: "subjectUniqueID"}
#: What must be there, with its tag (RFC 5280 section 4.1, RFC 2986 section 4.1).
_CERTIFICATE_FIELDS = {
    "version": _VERSION,
    "serial number": INTEGER,
    "signature algorithm": SEQUENCE,
    "issuer": SEQUENCE,
    "validity": SEQUENCE,
    "subject": SEQUENCE,
    "public key": SEQUENCE,
}
_REQUEST_FIELDS = {"version": INTEGER, "subject": SEQUENCE, "public key": SEQUENCE}
_LATEST = 3
_SERIAL_BITS = 159
_WITHOUT_PARAMETERS = ("ECDSA", "DSA", "ED")
_WORDS = {
    REQUEST: "CSR",
    CERTIFICATE: "certificate",
    TRUSTED: "certificate",
    CRL: "CRL",
    ANSWER: "OCSP response",
    "PKCS12": "PKCS #12 archive",
}


def name_of(label: str) -> str:
    """What a PEM label says in words."""
    if label.endswith(PRIVATE_KEY):
        return "private key"
    return _WORDS.get(label, label) or "unknown"


class CertificateReader:
    """Reads one certificate or CSR part by part: one that cannot be decoded becomes a remark."""

    def __init__(self, der: bytes, label: str) -> None:
        """Raises :class:`Malformed` where there are no parts."""
        self._remarks = Remarks()
        what = name_of(label)
        try:
            outer = expect(first(der), SEQUENCE, "outermost element", 0)
            self._der = outer.whole
            if not outer.content:
                raise damage(0, "it is an empty SEQUENCE")
            parts = tuple(outer.children)
            self._signed = expect(parts[0], SEQUENCE, "signed part", outer.inner)
            _, algorithm, signature = leading(outer, 3)
            end = len(der)
            self._algorithm = expect(algorithm, SEQUENCE, "signature algorithm", end)
            self._signature = expect(signature, BIT_STRING, "signature", end)
            self._fields = self._all_fields(label)
        except Malformed as error:
            raise Malformed(f"a {what} in it cannot be decoded: {error}") from None
        if parts[3:]:
            self._remarks.note(f"there is something after its signature, at byte {parts[3].at}")
        if len(der) > len(self._der):
            at = len(self._der)
            if label == TRUSTED:
                self._remarks.note(f"what OpenSSL trusts it for follows it, at byte {at}")
            else:
                self._remarks.follows(f"the {what} in its block", at, len(der))

    def _all_fields(self, label: str) -> tuple[Node, ...]:
        """The version first, even where it is left out, and the others that must be there."""
        found = list(self._signed.children)
        at = self._signed.inner
        wanted = _REQUEST_FIELDS if label == REQUEST else _CERTIFICATE_FIELDS
        if label != REQUEST and (not found or found[0].tag != _VERSION):
            found.insert(0, Node(_VERSION, b"\x02\x01\x00", b"\xa0\x03\x02\x01\x00", at))
        for number, (name, tag) in enumerate(wanted.items()):
            expect(found[number] if number < len(found) else None, tag, name, at)
        return tuple(found)

    def certificate(self, now: datetime) -> Description:
        """Everything that is in it."""
        remarks = self._remarks
        version_node, serial_node, inner, issuer, dates, subject, spki, *rest = self._fields
        version = remarks.attempt("version", lambda: integer_of(only(version_node, INTEGER)) + 1)
        serial = remarks.attempt("serial number", lambda: integer_of(serial_node))
        self_issued = issuer.whole == subject.whole
        not_before, not_after = self._dates(dates)
        key_facts, key = read_public_key(spki, remarks)
        extensions = self._extensions(rest)
        if version is not None and not 0 < version <= _LATEST:
            remarks.note(
                f"it is of version {version}, which there is not (RFC 5280 section 4.1.2.1)"
            )
        if serial is not None and serial <= 0:
            remarks.note("the serial number is not positive (RFC 5280 section 4.1.2.2)")
        if serial is not None and serial.bit_length() > _SERIAL_BITS:
            remarks.note("the serial number has more than 20 octets (RFC 5280 section 4.1.2.2)")
        if extensions and version is not None and version < _LATEST:
            remarks.note("it has extensions, and is not of version 3 (RFC 5280 section 4.1.2.1)")
        if inner.whole != self._algorithm.whole:
            remarks.note("it names two signature algorithms (RFC 5280 section 4.1.1.2)")
        checked = self._checked(key) if self_issued else Checked(None)
        is_ca = _is_ca(extensions)
        algorithm = self._algorithm_text()
        self._strictly(x509.load_der_x509_certificate)
        return Description(
            what=_kind(extensions, is_ca=is_ca, self_issued=self_issued),
            subject=remarks.name("subject", subject),
            issuer=remarks.name("issuer", issuer),
            version=version,
            serial=serial,
            signature_algorithm=algorithm,
            signed_by_itself=checked.holds,
            not_checked=checked.why,
            not_before=not_before,
            not_after=not_after,
            time_left=not_after - now if not_after else None,
            until_valid=not_before - now if not_before and now < not_before else None,
            public_key=key_facts,
            is_ca=is_ca,
            is_self_issued=self_issued,
            spiffe_ids=_spiffe_ids(extensions),
            extensions=extensions,
            sha256=hashlib.sha256(self._der).hexdigest(),
            sha1=hashlib.sha1(self._der, usedforsecurity=False).hexdigest(),
            remarks=remarks.all,
            unreadable=tuple(remarks.unreadable),
        )

    def request(self) -> Description:
        """Everything that is in it."""
        remarks = self._remarks
        version_node, subject, spki, *rest = self._fields
        version = remarks.attempt("version", lambda: integer_of(version_node) + 1)
        if version not in (None, 1):
            remarks.note(
                f"it is of version {version}, and 1 is the only one (RFC 2986 section 4.1)"
            )
        key_facts, key = read_public_key(spki, remarks)
        extensions, attributes = self._attributes(rest)
        checked = self._checked(key)
        self._strictly(x509.load_der_x509_csr)
        return Description(
            what="CSR",
            subject=remarks.name("subject", subject),
            version=version,
            signature_algorithm=self._algorithm_text(),
            signed_by_itself=checked.holds,
            not_checked=checked.why,
            public_key=key_facts,
            is_ca=_is_ca(extensions),
            spiffe_ids=_spiffe_ids(extensions),
            extensions=extensions,
            attributes=attributes,
            sha256=hashlib.sha256(self._der).hexdigest(),
            sha1=hashlib.sha1(self._der, usedforsecurity=False).hexdigest(),
            remarks=remarks.all,
            unreadable=tuple(remarks.unreadable),
        )

    def _strictly(self, load: Callable[[bytes], object]) -> None:
        """That it is refused for its form by those who judge, and nothing said so yet."""
        if self._remarks.all:
            return
        try:
            load(self._der)
        except HOSTILE_INPUT:
            self._remarks.note("strict readers refuse it: its form is not DER's (X.690 section 10)")

    def _algorithm_text(self) -> str:
        algorithm = self._algorithm
        text = self._remarks.attempt("signature algorithm", lambda: algorithm_text(algorithm))
        if text is None:
            return UNREADABLE
        if text.startswith(_WITHOUT_PARAMETERS) and len(tuple(algorithm.children)) > 1:
            self._remarks.note(
                f"its signature algorithm {text} has parameters at byte {algorithm.at}, and must have none "
                "(RFC 5758 section 3)"
            )
        return text

    def _checked(self, key: object) -> Checked:
        bits = self._remarks.attempt("signature", lambda: bits_of(self._signature))
        if bits is None:
            return Checked(None, "its signature cannot be decoded")
        return check(key, self._algorithm, bits, self._signed.whole)  # type: ignore[arg-type]

    def _dates(self, dates: Node) -> tuple[datetime | None, datetime | None]:
        parts = self._remarks.attempt("validity", lambda: tuple(dates.children)) or ()
        if len(parts) != 2:
            self._remarks.lose("its validity", f"it has not two times, at byte {dates.at}")
            return None, None
        not_before = self._remarks.time("beginning (notBefore)", parts[0])
        not_after = self._remarks.time("end (notAfter)", parts[1])
        if not_before and not_after and not_after < not_before:
            self._remarks.note("it ends before it begins")
        return not_before, not_after

    def _extensions(self, rest: Iterable[Node]) -> tuple[Extension, ...]:
        """Of a certificate, out of what comes after the key."""
        found: tuple[Extension, ...] = ()
        for part in rest:
            if part.tag == _EXTENSIONS:
                found += self._listed(part)
            elif part.tag & ~0x20 in _UNIQUE_IDS:
                name = _UNIQUE_IDS[part.tag & ~0x20]
                self._remarks.note(f"it has an {name}: {hex_pairs(part.content[1:65])}")
            else:
                self._remarks.follows("its key", part.at, part.at + len(part.whole))
        return found

    def _listed(self, holder: Node) -> tuple[Extension, ...]:
        """``holder`` holds the SEQUENCE of them."""
        try:
            listed = expect(first(holder.content, holder.inner), SEQUENCE, "list of extensions", 0)
        except Malformed as error:
            return self._remarks.no_extensions(holder.content, holder.inner, error)
        if len(listed.whole) < len(holder.content):
            at = listed.at + len(listed.whole)
            self._remarks.follows("its extensions", at, holder.inner + len(holder.content))
        return self._remarks.extensions(listed.content, listed.inner)

    def _attributes(self, rest: Iterable[Node]) -> tuple[tuple[Extension, ...], tuple[str, ...]]:
        extensions: tuple[Extension, ...] = ()
        texts: list[str] = []
        holder = next((part for part in rest if part.tag == _VERSION), None)
        if holder is None:
            self._remarks.note(
                "its attributes are left out, and are empty where there are none (RFC 2986 section 4.1)"
            )
            return (), ()
        try:
            for part in holder.children:
                extensions += self._attribute(part, texts)
        except Malformed as error:
            self._remarks.lose("its attributes", error)
            if not extensions:
                extensions = self._remarks.no_extensions(holder.content, holder.inner, error)
        return extensions, tuple(texts)

    def _attribute(self, part: Node, texts: list[str]) -> tuple[Extension, ...]:
        remarks = self._remarks
        try:
            kind, values = part.children
            oid = oid_of(kind)
            value = next(iter(values.children), None)
        except (Malformed, ValueError):
            remarks.lose(f"its attribute at byte {part.at}", "its DER is damaged or cut short")
            texts.append(UNREADABLE)
            return ()
        if oid in EXTENSION_REQUESTS:
            if value is None:
                remarks.note(f"its request for extensions at byte {part.at} holds none")
                return ()
            if value.tag != SEQUENCE:
                return remarks.no_extensions(value.whole, value.at, "it is no SEQUENCE")
            return remarks.extensions(value.content, value.inner)
        texts.append(_attribute_text(oid, value, remarks))
        return ()


def _attribute_text(oid: str, value: Node | None, remarks: Remarks) -> str:
    name = REQUEST_ATTRIBUTES.get(oid, oid)
    if value is None or oid == _CHALLENGE_PASSWORD:
        return name
    try:
        text = string_text(value, remarks.note, f"its attribute {name}")
    except Malformed:
        text = None
    return (
        f"{name}: {hex_pairs(value.whole[:64])}" if text is None else printable(f"{name}: {text}")
    )


def _kind(extensions: Iterable[Extension], *, is_ca: bool | None, self_issued: bool) -> str:
    if is_ca:
        return "root CA" if self_issued else "issuing CA"
    return "X.509-SVID" if _is_svid(extensions) else "certificate"


def _is_svid(extensions: Iterable[Extension]) -> bool:
    """Whether it names exactly one well-formed SPIFFE ID with a path, and no other URI."""
    named = [e for e in extensions if e.oid == _SUBJECT_ALT_NAME]
    if len(named) != 1 or named[0].damaged:
        return False
    uris = [value.removeprefix("URI:") for value in named[0].values if value.startswith("URI:")]
    try:
        return len(uris) == 1 and bool(SpiffeId.parse(uris[0]).path)
    except NotASpiffeId:
        return False


def _is_ca(extensions: tuple[Extension, ...]) -> bool | None:
    told = [e for e in extensions if e.oid == _BASIC_CONSTRAINTS]
    if any("CA: yes" in e.values for e in told):
        return True
    return None if any(e.damaged for e in (*told, *_lost(extensions))) else False


def _spiffe_ids(extensions: tuple[Extension, ...]) -> tuple[str, ...] | None:
    named = [e for e in extensions if e.oid == _SUBJECT_ALT_NAME]
    found = tuple(v[4:] for e in named for v in e.values if v.startswith("URI:spiffe:"))
    return found or (None if any(e.damaged for e in (*named, *_lost(extensions))) else ())


def _lost(extensions: Iterable[Extension]) -> Iterable[Extension]:
    """Those of which not even the kind can be read: it may be any."""
    return [e for e in extensions if e.oid == "unknown"]
