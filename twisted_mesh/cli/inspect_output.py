"""What ``pki-inspect`` prints: descriptions and verdicts as text for people and JSON for programs."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from pki.errors import Problem
from pki.inspect.description import Description, ReceiptFacts
from pki.inspect.extensions import Extension
from pki.inspect.name_text import hex_pairs
from pki.serial import serial_hex, serial_pairs
from pki.validity import rfc3339, spoken_duration

if TYPE_CHECKING:
    from pki.inspect.path_report import Decision, Link

#: How much of a list or of an unknown value is shown to people; JSON has all of it.
_MOST_VALUES = 50
_MOST_BYTES = 128
_UNREADABLE = "(cannot be decoded)"

#: A label and the lines beside it.
Row = tuple[str, Sequence[str]]


def shown_text(found: Sequence[tuple[str, Description]]) -> str:
    """``show`` for people: a section for each thing that was found, with the name of where."""
    totals, seen = Counter(source for source, _ in found), Counter[str]()
    width = 0
    sections: list[tuple[str, list[Row]]] = []
    for source, description in found:
        seen[source] += 1
        place = f" ({seen[source]} of {totals[source]})" if totals[source] > 1 else ""
        heading = f"{click.style(description.what, bold=True)}  {source}{place}"
        rows = list(_rows(description))
        width = max(width, *(len(label) for label, _ in rows), 0) if rows else width
        sections.append((heading, rows))
    return "\n\n".join("\n".join((heading, *aligned(rows, width))) for heading, rows in sections)


def shown_json(found: Iterable[tuple[str, Description]]) -> str:
    """``show`` for programs: an array of objects, each with its ``source``."""
    return json.dumps([{"source": source, **described(item)} for source, item in found], indent=2)


def losses(source: str, held: Sequence[Description]) -> list[str]:
    """A sentence for people if something in a file could not be read, with the first place."""
    lost = [(number, why) for number, item in enumerate(held, 1) for why in item.unreadable]
    if not lost:
        return []
    number, why = lost[0]
    place = f", block {number} of {len(held)}" if held[1:] else ""
    more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
    return [f"{source}{place}: {why}{more}; the rest is shown"]


def verdict_text(verdict: "Decision", links: Sequence["Link"], purpose: str, now: datetime) -> str:
    """``verify`` for people: a section for each certificate of the chain, then the verdict and each problem."""
    sections = [
        "\n".join((_heading(number, link), *aligned(_link_rows(link), 12)))
        for number, link in enumerate(links)
    ]
    as_of = f"as {purpose} at {rfc3339(now)}"
    if verdict.ok:
        sections.append(f"verdict: {good('valid')} {as_of}")
    else:
        count = len(verdict.problems)
        problems = f"{count} problem{'s' if count > 1 else ''}"
        sections.append(f"verdict: {bad('invalid')} {as_of}, {problems}")
        sections += map(problem_text, verdict.problems)
    return "\n\n".join(sections)


def verdict_json(
    verdict: "Decision", links: Iterable["Link"], unreadable: Sequence[str] = ()
) -> str:
    """``verify`` for programs: an object with ``verdict``, ``problems`` and ``chain``.

    And with ``unreadable``, where something was given beside the leaf that could not be judged by.
    """
    return json.dumps(
        {
            "verdict": "valid" if verdict.ok else "invalid",
            "problems": [problem_json(problem) for problem in verdict.problems],
            "chain": [_link(link) for link in links],
            **({"unreadable": list(unreadable)} if unreadable else {}),
        },
        indent=2,
    )


def good(text: str) -> str:
    """On a terminal in green."""
    return click.style(text, fg="green")


def bad(text: str) -> str:
    """On a terminal in red."""
    return click.style(text, fg="red")


def aligned(rows: Iterable[Row], width: int) -> Iterator[str]:
    """Rows as lines, their labels in a column of ``width``."""
    for label, values in rows:
        for number, value in enumerate(values or ("",)):
            # Padded first: the colour's codes have no width.
            shown = click.style((label if not number else "").ljust(width), fg="cyan")
            yield f"  {shown}  {value}".rstrip()


def _rows(item: Description) -> Iterator[Row]:
    if item.facts:
        # Its digest comes last, as a certificate's does.
        for name, values in item.facts[:-1]:
            yield name.replace("_", " "), list(_some(values))
        yield from _extension_rows(item)
        yield item.facts[-1]
        yield from _remark_rows(item)
        return
    if item.unreadable and not item.is_shown:
        yield "unreadable", [bad(why) for why in item.unreadable]
        return
    if not item.is_shown or item.public_key is None:
        yield "shown", ["no: only certificates and CSRs are"]
        return
    if item.spiffe_ids:
        yield "SPIFFE ID", item.spiffe_ids
    elif item.spiffe_ids is None:
        yield "SPIFFE ID", [_unread(item, "subjectAltName")]
    yield "subject", [item.subject or "(empty)"]
    if item.issuer is not None:
        yield "issuer", [item.issuer or "(empty)"]
        yield "serial", [bad(_UNREADABLE) if item.serial is None else serial_pairs(item.serial)]
    yield "version", [bad(_UNREADABLE) if item.version is None else str(item.version)]
    if item.issuer is not None:
        yield "valid from", [_moment(item.not_before)]
        yield "valid until", [_moment(item.not_after)]
        yield "time left", [_time_left(item)]
        yield "CA", [_ca(item)]
        yield "self-issued", [_self_issued(item)]
    else:
        yield "proof of key", [_proof(item)]
    yield "signature", [item.signature_algorithm]
    key = item.public_key
    yield "public key", [key.label, *_key_details(item)]
    yield "SPKI SHA-256", [_pairs(key.spki_sha256)]
    yield from _extension_rows(item)
    if item.attributes:
        yield "attributes", list(_some(item.attributes))
    yield "SHA-256", [_pairs(item.sha256)]
    yield "SHA-1", [_pairs(item.sha1)]
    yield from _remark_rows(item)


def _extension_rows(item: Description) -> Iterator[Row]:
    for extension in item.extensions:
        critical = " (critical)" if extension.critical else ""
        yield extension.name + critical, list(_extension_lines(extension))
    if item.receipts:
        yield "receipts (SCTs)", [_receipt(receipt) for receipt in item.receipts]


def _receipt(receipt: ReceiptFacts) -> str:
    named = receipt.log or f"log {receipt.log_id[:16]}…"
    entry = "" if receipt.index is None else f", entry {receipt.index}"
    verdict = receipt.why or "good"
    if receipt.counts is not None:
        verdict = good(verdict) if receipt.counts else bad(verdict)
    return f"{named}, {rfc3339(receipt.at)}{entry}: {verdict}"


def _remark_rows(item: Description) -> Iterator[Row]:
    if item.remarks:
        yield "remarks", [bad(remark) for remark in _some(item.remarks)]


def _moment(moment: datetime | None) -> str:
    return rfc3339(moment) if moment else bad(_UNREADABLE)


def _unread(item: Description, name: str) -> str:
    """What is told by an extension that cannot be decoded, or by one of which not even the name can."""
    lost = [e for e in item.extensions if e.damaged and e.name in (name, "unknown")]
    return bad(f"cannot be read ({lost[0].why})" if lost else "cannot be read")


def _ca(item: Description) -> str:
    if item.is_ca is None:
        return _unread(item, "basicConstraints")
    return "yes" if item.is_ca else "no"


def _proof(item: Description) -> str:
    if item.signed_by_itself is None:
        return f"not checked: {item.not_checked}"
    return good("ok") if item.signed_by_itself else bad("failed")


def _key_details(item: Description) -> Iterator[str]:
    key = item.public_key
    if key and key.curve:
        yield f"{key.bits} bits, curve {key.curve}"
    elif key and key.exponent is not None:
        yield f"{key.bits} bits, exponent {key.exponent}"
    elif key and key.bits is not None:
        yield f"{key.bits} bits"


def _self_issued(item: Description) -> str:
    if not item.is_self_issued:
        return "no"
    if item.signed_by_itself is None:
        return f"yes; whether its own key signed it was not checked: {item.not_checked}"
    if item.signed_by_itself:
        return "yes, and signed by its own key"
    return "yes, but signed by another key, or changed since"


def _time_left(item: Description) -> str:
    if item.until_valid is not None:
        return bad(f"begins in {spoken_duration(item.until_valid)}")
    if item.time_left is None:
        return bad("unknown")
    if item.time_left < timedelta(0):
        return bad(f"expired {spoken_duration(-item.time_left)} ago")
    return good(spoken_duration(item.time_left))


def _extension_lines(extension: Extension) -> Iterator[str]:
    yield from _some(extension.values)
    if extension.damaged:
        rest = "the rest " if extension.values else ""
        yield bad(f"{rest}cannot be decoded; its bytes:")
    if extension.damaged or not extension.values:
        value = extension.value
        for start in range(0, min(len(value), _MOST_BYTES), 32):
            yield hex_pairs(value[start : min(start + 32, _MOST_BYTES)])
        if len(value) > _MOST_BYTES:
            yield f"and {len(value) - _MOST_BYTES} bytes more: --format json shows them all"


def _some(values: Sequence[str]) -> Iterator[str]:
    yield from values[:_MOST_VALUES]
    if len(values) > _MOST_VALUES:
        yield f"and {len(values) - _MOST_VALUES} more: --format json shows them all"


def _pairs(digits: str) -> str:
    return hex_pairs(bytes.fromhex(digits))


def described(item: Description) -> dict[str, object]:
    """One thing for programs."""
    key = item.public_key
    if key is None:
        told = {"extensions": _extensions(item)} if item.facts else {}
        remarked = {"remarks": item.remarks, "damaged": True} if item.unreadable else {}
        if item.facts:
            remarked = {"remarks": item.remarks, "damaged": bool(item.unreadable)}
        return {"what": item.what, **dict(item.facts), **told, **remarked}
    return {
        "what": item.what,
        "spiffe_ids": item.spiffe_ids,
        "subject": item.subject,
        "issuer": item.issuer,
        "version": item.version,
        "serial": None if item.serial is None else serial_hex(item.serial),
        "not_before": item.not_before and rfc3339(item.not_before),
        "not_after": item.not_after and rfc3339(item.not_after),
        "seconds_left": None if item.time_left is None else int(item.time_left.total_seconds()),
        "is_ca": item.is_ca,
        "is_self_issued": item.is_self_issued,
        "signed_by_itself": item.signed_by_itself,
        "not_checked": item.not_checked or None,
        "signature_algorithm": item.signature_algorithm,
        "public_key": {
            "algorithm": key.algorithm,
            "label": key.label,
            "bits": key.bits,
            "curve": key.curve or None,
            "exponent": key.exponent,
            "spki_sha256": key.spki_sha256,
        },
        "extensions": _extensions(item),
        **({"receipts": _receipts(item)} if item.receipts else {}),
        "attributes": item.attributes,
        "sha256": item.sha256,
        "sha1": item.sha1,
        "remarks": item.remarks,
        "damaged": bool(item.unreadable),
    }


def _receipts(item: Description) -> list[dict[str, object]]:
    return [
        {
            "log": receipt.log or None,
            "log_id": receipt.log_id,
            "at": rfc3339(receipt.at),
            "index": receipt.index,
            "counts": receipt.counts,
            "why": receipt.why or None,
        }
        for receipt in item.receipts
    ]


def _extensions(item: Description) -> list[dict[str, object]]:
    return [
        {
            "oid": extension.oid,
            "name": extension.name,
            "critical": extension.critical,
            "values": extension.values,
            "hex": extension.value.hex(),
            "damaged": extension.damaged,
        }
        for extension in item.extensions
    ]


def _heading(number: int, link: "Link") -> str:
    item = link.certificate
    return f"certificate {number}: {click.style(item.what, bold=True)} {item.subject}".rstrip()


def _link_rows(link: "Link") -> Iterator[Row]:
    item = link.certificate
    if item.spiffe_ids:
        yield "SPIFFE ID", item.spiffe_ids
    yield "serial", [serial_pairs(item.serial or 0)]
    detail = link.detail
    if link.signed is not None:
        detail = good(detail) if link.signed else bad(f"failed: {detail}")
    yield "signed by", [f"{item.issuer or '(empty name)'}: {detail}"]
    yield (
        "dates",
        [f"{good('ok')}, {_time_left(item)} left" if link.dates_ok else _time_left(item)],
    )
    if link.is_root:
        yield "trusted", ["as a root that was given"]
    codes = dict.fromkeys(problem.code for problem in link.problems)
    yield "problems", [bad(", ".join(codes)) if codes else good("none")]


def problem_text(problem: Problem) -> str:
    """One problem for people, with its rule and its remedy."""
    rows = [("subject", [problem.subject]), ("rule", [problem.rule]), ("remedy", [problem.remedy])]
    return "\n".join(
        (
            f"{bad(problem.code)}: {problem.detail}",
            *aligned([row for row in rows if row[1][0]], 12),
        )
    )


def problem_json(problem: Problem) -> dict[str, str]:
    """One problem for programs."""
    return {
        "code": problem.code,
        "subject": problem.subject,
        "rule": problem.rule,
        "detail": problem.detail,
        "remedy": problem.remedy,
    }


def _link(link: "Link") -> dict[str, object]:
    item = link.certificate
    return {
        "what": item.what,
        "subject": item.subject,
        "spiffe_ids": item.spiffe_ids,
        "serial": serial_hex(item.serial or 0),
        "not_before": item.not_before and rfc3339(item.not_before),
        "not_after": item.not_after and rfc3339(item.not_after),
        "sha256": item.sha256,
        "signed_by": {"issuer": item.issuer, "ok": link.signed, "detail": link.detail},
        "dates_ok": link.dates_ok,
        "is_root": link.is_root,
        "problems": list(dict.fromkeys(problem.code for problem in link.problems)),
    }
