"""What ``pki-inspect probe`` prints: the connection, the chain and the verdict, for people and for programs."""

import json
from collections.abc import Iterator, Sequence

import click

from pki.errors import Problem
from pki.inspect.description import Description
from twisted_mesh.cli.inspect_output import (
    Row,
    aligned,
    bad,
    described,
    good,
    problem_json,
    problem_text,
    shown_text,
)
from twisted_mesh.cli.inspect_probe_verdict import Judged
from twisted_mesh.tls.conversation import Target
from twisted_mesh.tls.hybrid import is_hybrid
from twisted_mesh.tls.probe import Answer, Probed, Wishes
from twisted_mesh.tls.probe_groups import Groups, KeyExchange, Taking

_WIDTH = 19
_MOST_NAMES = 20
_ANSWERS = {
    Answer.NOT_ASKED: "not asked for",
    Answer.ACCEPTED: "accepted by TLS; what its application allows was not asked",
    Answer.REFUSED: "refused",
    Answer.CLOSED: "it closed the connection without a word",
    Answer.UNKNOWN: "unknown: the handshake did not get so far",
    Answer.NO_OBJECTION: "no objection so far; it did not say goodbye",
}


def probe_text(found: Probed, wishes: Wishes, judged: Judged, groups: Groups | None = None) -> str:
    """A section for the connection, one for each certificate as it was sent, the verdict, and each problem."""
    heading = f"{click.style('server', bold=True)}  {found.target} ({found.address})"
    sections = ["\n".join((heading, *aligned(_rows(found, wishes, judged, groups), _WIDTH)))]
    chain = [item for item in judged.chain if isinstance(item, Description)]
    if chain:
        sections.append(shown_text([("as sent", item) for item in chain]))
    sections += (bad(item) for item in judged.chain if isinstance(item, str))
    sections.append(_verdict(found, judged))
    sections += map(problem_text, _problems(found, judged))
    return "\n\n".join(sections)


def _rows(found: Probed, wishes: Wishes, judged: Judged, groups: Groups | None) -> Iterator[Row]:
    yield "asked for", [wishes.servername or "(no name)"]
    if found.protocol:
        yield "protocol", [found.protocol]
        yield "cipher", [f"{found.cipher} ({found.bits} bits)"]
        yield "group", [_group(found.group)]
        offered = ", ".join(wishes.alpn) or "nothing"
        yield "ALPN", [found.alpn or f"none (offered: {offered})"]
    else:
        yield "protocol", [bad("the handshake failed")]
    if groups is not None:
        yield "groups", list(_groups(groups))
    yield "client certificate", list(_client_certificate(found, wishes))
    staple = judged.staple
    status = {"good": good, "revoked": bad, "bad": bad}.get(staple.status, str)(staple.status)
    yield "OCSP staple", [f"{status}: {staple.detail}" if staple.detail else status]
    yield "certificates sent", [str(len(found.chain))]
    if judged.remarks:
        yield "their order", judged.remarks


def _group(group: str) -> str:
    if not group:
        return "none"
    if is_hybrid(group):
        return f"{group} ({good('hybrid')}: survives a quantum computer)"
    return f"{group} (classical: who records this reads it once there is a quantum computer)"


def _groups(groups: Groups) -> Iterator[str]:
    for taking in Taking:
        named = [name for name, found in groups.takes.items() if found is taking]
        if named:
            yield f"{taking}: {', '.join(named)}"
    paint = bad if groups.verdict in {KeyExchange.CLASSICAL_ONLY, KeyExchange.UNKNOWN} else good
    yield f"key exchange: {paint(groups.verdict)}"


def _client_certificate(found: Probed, wishes: Wishes) -> Iterator[str]:
    if not found.asks:
        yield _ANSWERS[found.answer]
        return
    yield "asked for, of any CA" if not found.named_cas else "asked for, of one of these CAs:"
    yield from (f"  {name}" for name in found.named_cas[:_MOST_NAMES])
    if len(found.named_cas) > _MOST_NAMES:
        yield f"  and {len(found.named_cas) - _MOST_NAMES} more: --format json shows them all"
    yield f"shown: {wishes.identity.spiffe_id if wishes.identity else 'none'}"
    paint = {Answer.ACCEPTED: good, Answer.REFUSED: bad, Answer.CLOSED: bad}.get(found.answer, str)
    yield f"answer: {paint(_ANSWERS[found.answer])}"


def _verdict(found: Probed, judged: Judged) -> str:
    if not found.chain and found.problem is not None:
        return f"verdict: not judged: {bad('the server ended the handshake')}"
    by = f", by the roots in {', '.join(judged.roots)}" if judged.roots else ""
    paint = good if judged.ok else bad
    why = f": {judged.why}" if judged.why else ""
    return f"verdict: {paint(judged.verdict)} as {judged.purpose}{by}{why}"


def _problems(found: Probed, judged: Judged) -> list[Problem]:
    """Why it refused us, and what is wrong with it."""
    refusal = [found.problem] if found.problem is not None else []
    return [*refusal, *(judged.problems if found.chain or not refusal else ())]


def probe_json(
    found: Probed,
    wishes: Wishes,
    judged: Judged,
    unreadable: Sequence[str] = (),
    groups: Groups | None = None,
) -> str:
    """An object with what was seen, ``chain`` as ``show`` has it, and ``verdict`` and ``problems`` as ``verify``."""
    is_seen = bool(found.chain) or found.problem is None
    return json.dumps(
        {
            "target": str(found.target),
            "address": found.address,
            "servername": wishes.servername or None,
            "protocol": found.protocol or None,
            "cipher": found.cipher or None,
            "bits": found.bits or None,
            "group": found.group or None,
            "key_exchange": _kind(found.group),
            **(
                {"groups": {"takes": dict(groups.takes), "verdict": groups.verdict}}
                if groups is not None
                else {}
            ),
            "alpn": found.alpn or None,
            "client_certificate": {
                "asked_for": None if found.answer is Answer.UNKNOWN else found.asks,
                "cas": found.named_cas,
                "shown": str(wishes.identity.spiffe_id) if wishes.identity else None,
                "answer": found.answer,
            },
            "staple": {"status": judged.staple.status, "detail": judged.staple.detail},
            "verdict": judged.verdict if is_seen else "not judged",
            "purpose": judged.purpose,
            "roots": judged.roots,
            "problems": [problem_json(problem) for problem in _problems(found, judged)],
            "remarks": judged.remarks,
            "chain": [
                described(item) if isinstance(item, Description) else {"unreadable": item}
                for item in judged.chain
            ],
            **({"unreadable": list(unreadable)} if unreadable else {}),
        },
        indent=2,
    )


def _kind(group: str) -> str | None:
    if not group:
        return None
    return "hybrid" if is_hybrid(group) else "classical"


def failed_json(target: Target, problem: Problem) -> str:
    """For a server that was not reached."""
    return json.dumps(
        {"target": str(target), "verdict": "unreachable", "problems": [problem_json(problem)]},
        indent=2,
    )
