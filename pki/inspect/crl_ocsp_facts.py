"""Statements: what a CRL or an OCSP response says about certificates, as facts for people. No verdict.

Every text is printable. Facts have names as in JSON, ``this_update``, and any number of values each. What cannot
be read hides nothing but itself: an entry is named by its number and place.
"""

import hashlib
from collections.abc import Iterator

from attrs import define, field, frozen

from pki.der import (
    BIT_STRING,
    ENUMERATED,
    GENERALIZED_TIME,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    UTC_TIME,
)
from pki.errors import Malformed
from pki.inspect.ber import (
    Node,
    damage,
    expect,
    first,
    integer_of,
    leading,
    nodes,
    oid_of,
    only,
    time_of,
)
from pki.inspect.description import Fact, Facts
from pki.inspect.extension_values import reason_text
from pki.inspect.extensions import Extension, read_extensions
from pki.inspect.name_text import hex_pairs
from pki.inspect.oid_names import HASHES
from pki.inspect.own_signature import algorithm_text
from pki.inspect.remarks import UNREADABLE, Remarks
from pki.serial import serial_pairs
from pki.validity import rfc3339

_CRL_EXTENSIONS = 0xA0
_TIMES = (UTC_TIME, GENERALIZED_TIME)
_REASON, _NUMBER, _NONCE = "2.5.29.21", "2.5.29.20", "1.3.6.1.5.5.7.48.1.2"
_NOT_SAID = "(not said)"
_STATUSES = {
    0: "successful",
    1: "malformed request",
    2: "internal error",
    3: "try later",
    5: "sig required",
    6: "unauthorized",
}
_STANDINGS = {0x80: "good", 0xA0: "good", 0xA1: "revoked", 0x82: "unknown", 0xA2: "unknown"}
_BASIC = "1.3.6.1.5.5.7.48.1.1"
#: How many different ends of entries are remembered: entries have few.
_REMEMBERED = 4096


@frozen
class Statement:
    """A CRL or an OCSP response, read."""

    facts: Facts
    extensions: tuple[Extension, ...] = ()
    remarks: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Those remarks that are about what cannot be read."""


def crl_statement(der: bytes) -> Statement:
    """Raises :class:`Malformed` where there is no outline of a CRL."""
    remarks = Remarks()
    try:
        outer = _outermost(der, "CRL", remarks)
        signed, algorithm = leading(outer, 2)
        fields = _CrlFields.of(expect(signed, SEQUENCE, "signed part", outer.inner))
        algorithm = expect(algorithm, SEQUENCE, "signature algorithm", outer.at)
    except Malformed as error:
        raise Malformed(f"a CRL in it cannot be decoded: {error}") from None
    for part in fields.strange:
        remarks.hide(f"a part of the CRL at byte {part.at} does not belong there, and is not shown")
    extensions = _listed(fields.extensions, remarks)
    entries = tuple(_Entries(remarks).read(fields.revoked)) if fields.revoked else ()
    facts: list[Fact] = [("issuer", (remarks.name("issuer", fields.issuer) or "(empty)",))]
    facts += [("number", e.values) for e in extensions if e.oid == _NUMBER and e.values]
    facts.append(("this_update", (_time(fields.this_update, "thisUpdate", remarks),)))
    facts.append(("next_update", (_time(fields.next_update, "nextUpdate", remarks),)))
    facts.append(("signature", (_algorithm(algorithm, remarks),)))
    facts.append(("entries", (str(len(entries)),)))
    if entries:
        facts.append(("revoked", entries))
    facts.append(("sha256", (hex_pairs(hashlib.sha256(outer.whole).digest()),)))
    return Statement(tuple(facts), extensions, remarks.all, tuple(remarks.unreadable))


def answer_statement(der: bytes) -> Statement:
    """Raises :class:`Malformed` where there is no outline of an OCSP response."""
    remarks = Remarks()
    try:
        outer = _outermost(der, "OCSP response", remarks)
        status, holder = leading(outer, 2)
        number = integer_of(expect(status, ENUMERATED, "status", outer.inner))
    except Malformed as error:
        raise Malformed(f"the OCSP response cannot be decoded: {error}") from None
    basic = remarks.attempt("response", lambda: _basic(holder)) if holder is not None else None
    facts: list[Fact] = [("status", (_STATUSES.get(number, f"number {number}"),))]
    extensions: tuple[Extension, ...] = ()
    if basic is not None:
        told = _Answer(basic, remarks)
        facts += told.facts()
        extensions = told.extensions
    facts.append(("sha256", (hex_pairs(hashlib.sha256(outer.whole).digest()),)))
    return Statement(tuple(facts), extensions, remarks.all, tuple(remarks.unreadable))


def _outermost(der: bytes, what: str, remarks: Remarks) -> Node:
    outer = expect(first(der), SEQUENCE, "outermost element", 0)
    if not outer.content:
        raise damage(0, "it is an empty SEQUENCE")
    if len(der) > len(outer.whole):
        remarks.follows(f"the {what} in its block", len(outer.whole), len(der))
    return outer


@define
class _CrlFields:
    """A TBSCertList (RFC 5280 section 5.1), by what its parts look like."""

    issuer: Node
    this_update: Node
    next_update: Node | None = None
    revoked: Node | None = None
    extensions: Node | None = None
    strange: list[Node] = field(factory=list)

    @classmethod
    def of(cls, signed: Node) -> "_CrlFields":
        """Raises :class:`Malformed`."""
        parts = list(signed.children)
        if parts and parts[0].tag == INTEGER:
            del parts[0]
        end = signed.inner + len(signed.content)
        head = (*parts[:3], None, None, None)
        expect(head[0], SEQUENCE, "signature algorithm", end)
        found = cls(expect(head[1], SEQUENCE, "issuer", end), _time_node(head[2], end))
        for part in parts[3:]:
            if part.tag in _TIMES and found.next_update is None and found.revoked is None:
                found.next_update = part
            elif part.tag == SEQUENCE and found.revoked is None and found.extensions is None:
                found.revoked = part
            elif part.tag == _CRL_EXTENSIONS and found.extensions is None:
                found.extensions = part
            else:
                found.strange.append(part)
        return found


def _time_node(node: Node | None, at: int) -> Node:
    if node is None or node.tag not in _TIMES:
        raise damage(node.at if node else at, "its thisUpdate is missing or no time")
    return node


@define
class _Entries:
    """Reads the entries of a CRL. Dates and extensions of entries repeat, and are remembered."""

    _remarks: Remarks
    _times: dict[bytes, str] = field(factory=dict)
    _whys: dict[bytes, str] = field(factory=dict)

    def read(self, listed: Node) -> Iterator[str]:
        """One text each; of what cannot be read, the number and place."""
        number, place = 0, listed.inner
        try:
            for number, node in enumerate(listed.children, 1):
                place = node.at + len(node.whole)
                yield self._entry(number, node)
        except Malformed as error:
            what = f"entry {number + 1} at byte {place}, and what follows it,"
            self._remarks.lose(what, error)
            yield f"({what} cannot be decoded)"

    def _entry(self, number: int, node: Node) -> str:
        try:
            serial, since, *rest = node.children
            expect(serial, INTEGER, "serial number", node.inner)
            when = self._times.get(since.whole)
            if when is None:
                when = rfc3339(time_of(_time_node(since, node.at))[0])
                self._remember(self._times, since.whole, when)
            why = self._why(number, rest[0]) if rest else ""
            return f"{serial_pairs(integer_of(serial))} since {when}{why}"
        except (Malformed, ValueError) as error:
            what = f"entry {number} at byte {node.at}"
            found = error if isinstance(error, Malformed) else "it is damaged or cut short"
            self._remarks.lose(what, found)
            return f"({what} cannot be decoded)"

    def _why(self, number: int, listed: Node) -> str:
        why = self._whys.get(listed.whole)
        if why is None:
            found = read_extensions(listed.content, listed.inner)
            for extension in found:
                if extension.damaged:
                    self._remarks.lose(
                        f"extension {extension.name} at byte {extension.at} of entry {number}",
                        extension.why,
                    )
            why = f" ({', '.join(map(_said, found))})" if found else ""
            if not any(extension.damaged for extension in found):
                self._remember(self._whys, listed.whole, why)
        return why

    def _remember(self, texts: dict[bytes, str], key: bytes, text: str) -> None:
        if len(texts) < _REMEMBERED:
            texts[key] = text


def _said(extension: Extension) -> str:
    """One extension of an entry or of an answer, in a few words."""
    if extension.oid == _REASON and extension.values:
        return extension.values[0]
    mark = " (critical)" if extension.critical else ""
    if extension.damaged:
        return f"{extension.name}{mark} {UNREADABLE}"
    values = "; ".join(extension.values) or hex_pairs(extension.value[:32])
    return f"{extension.name}{mark} {values}".rstrip()


def _listed(holder: Node | None, remarks: Remarks) -> tuple[Extension, ...]:
    """The extensions in an explicitly tagged SEQUENCE of them."""
    if holder is None:
        return ()
    try:
        listed = expect(only(holder), SEQUENCE, "list of extensions", holder.at)
    except Malformed as error:
        return remarks.no_extensions(holder.content, holder.inner, error)
    return remarks.extensions(listed.content, listed.inner)


def _time(node: Node | None, what: str, remarks: Remarks) -> str:
    if node is None:
        return _NOT_SAID
    moment = remarks.time(what, node)
    return rfc3339(moment) if moment else UNREADABLE


def _algorithm(node: Node, remarks: Remarks) -> str:
    text = remarks.attempt("signature algorithm", lambda: algorithm_text(node))
    return UNREADABLE if text is None else text


def _basic(holder: Node) -> Node:
    """The BasicOCSPResponse (RFC 6960 section 4.2.1). Raises :class:`Malformed`."""
    kind, value = leading(only(holder, SEQUENCE), 2)
    oid = oid_of(expect(kind, 0x06, "kind of response", holder.at))
    if oid != _BASIC:
        raise damage(holder.at, f"its kind of response, {oid}, is not known here")
    octets = expect(value, OCTET_STRING, "response", holder.at)
    return expect(first(octets.octets(), octets.inner), SEQUENCE, "response", octets.inner)


class _Answer:
    """Reads a BasicOCSPResponse part by part."""

    def __init__(self, basic: Node, remarks: Remarks) -> None:
        self._remarks = remarks
        self._basic = basic
        self.extensions: tuple[Extension, ...] = ()

    def facts(self) -> list[Fact]:
        """What it says; its own extensions are there afterwards."""
        remarks, facts = self._remarks, list[Fact]()
        parts = remarks.attempt("response", lambda: tuple(self._basic.children)) or ()
        signed = parts[0] if parts else None
        fields = remarks.attempt("response data", lambda: tuple(signed.children if signed else ()))
        for part in fields or ():
            if part.tag == 0xA2:
                key = remarks.attempt("responder", lambda part=part: only(part).octets())  # type: ignore[misc]
                facts.append(("responder", (f"key {hex_pairs(key)}" if key else UNREADABLE,)))
            elif part.tag == 0xA1 and not any(name == "produced_at" for name, _ in facts):
                name = remarks.attempt("responder", lambda part=part: only(part))  # type: ignore[misc]
                text = remarks.name("responder", name) if name else UNREADABLE
                facts.append(("responder", (text or "(empty)",)))
            elif part.tag == GENERALIZED_TIME:
                facts.append(("produced_at", (_time(part, "producedAt", remarks),)))
            elif part.tag == SEQUENCE:
                facts += self._answers(part)
            elif part.tag == 0xA1:
                self.extensions = _listed(part, remarks)
        facts += [("nonce", e.values) for e in self.extensions if e.oid == _NONCE and e.values]
        if len(parts) > 1:
            facts.append(("signature", (_algorithm(parts[1], remarks),)))
        if any(part.tag == 0xA0 for part in parts[2:]):
            facts.append(("certificates", tuple(self._certificates(parts[-1]))))
        if len(parts) < 3 or parts[2].tag != BIT_STRING:
            remarks.lose("its signature", f"it is missing, at byte {self._basic.at}")
        return facts

    def _answers(self, listed: Node) -> Iterator[Fact]:
        answers: list[str] = []
        issuers: dict[str, None] = {}
        place = listed.inner
        try:
            for number, node in enumerate(listed.children, 1):
                place = node.at + len(node.whole)
                answers.append(self._single(number, node, issuers))
        except Malformed as error:
            self._remarks.lose(f"answer {len(answers) + 1} at byte {place}", error)
            answers.append(UNREADABLE)
        yield "answers", tuple(answers)
        if issuers:
            yield "issuers", tuple(issuers)

    def _single(self, number: int, node: Node, issuers: dict[str, None]) -> str:
        try:
            about, status, since, *rest = node.children
            digest, name_hash, key_hash, serial = about.children
            oid = oid_of(first(digest.content, digest.inner))
            issuers[
                f"{HASHES.get(oid, oid)} of name {hex_pairs(name_hash.octets())}, "
                f"of key {hex_pairs(key_hash.octets())}"
            ] = None
            said = self._standing(status)
            until, told = _NOT_SAID, ""
            for part in rest:
                if part.tag == 0xA0:
                    until = _time(only(part), f"nextUpdate in answer {number}", self._remarks)
                elif part.tag == 0xA1:
                    inner = only(part, SEQUENCE)
                    whose = f"answer {number}'s"
                    found = self._remarks.extensions(inner.content, inner.inner, whose)
                    told = "".join(f", {_said(extension)}" for extension in found)
            begin = _time(since, f"thisUpdate in answer {number}", self._remarks)
            pairs = serial_pairs(integer_of(serial))
            return f"{pairs} is {said}, from {begin} until {until}{told}"
        except (Malformed, ValueError) as error:
            why = error if isinstance(error, Malformed) else "it is damaged or cut short"
            self._remarks.lose(f"answer {number} at byte {node.at}", why)
            return UNREADABLE

    def _standing(self, status: Node) -> str:
        said = _STANDINGS.get(status.tag)
        if said is None:
            raise damage(status.at, "its status is none that there is")
        if said != "revoked":
            return said
        since, *reasons = status.children
        said += f" since {_time(since, 'revocationTime', self._remarks)}"
        return said + "".join(f" ({reason_text(only(reason))})" for reason in reasons)

    def _certificates(self, holder: Node) -> Iterator[str]:
        """Their subjects."""
        try:
            listed = tuple(nodes(only(holder, SEQUENCE).content, only(holder).inner))
        except Malformed as error:
            self._remarks.lose("its certificates", error)
            return
        for number, node in enumerate(listed, 1):
            try:
                fields = list(first(node.content, node.inner).children)
                subject = fields[5 if fields[0].tag == 0xA0 else 4]
                yield self._remarks.name(f"subject of certificate {number}", subject) or "(empty)"
            except (Malformed, LookupError):
                self._remarks.lose(f"its certificate {number}", f"it is damaged, at byte {node.at}")
                yield UNREADABLE
