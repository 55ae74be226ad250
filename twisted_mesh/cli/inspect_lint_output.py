"""What ``pki-inspect lint`` prints: findings, and what was looked at, for people and for programs."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from pki.inspect.lint_report import LintReport
from twisted_mesh.cli.inspect_output import (
    Row,
    aligned,
    bad,
    good,
    problem_json,
    problem_text,
)

#: A thing, and the name of where it is from.
Found = Sequence[tuple[str, LintReport]]

_WIDTH = 11


def lint_text(reports: Found, unreadable: Sequence[str]) -> str:
    """A section for each thing, with its findings below it, and how many there are in all."""
    totals, seen = Counter(source for source, _ in reports), Counter[str]()
    sections: list[str] = []
    for source, report in reports:
        seen[source] += 1
        place = f" ({seen[source]} of {totals[source]})" if totals[source] > 1 else ""
        heading = f"{click.style(report.what, bold=True)}  {source}{place}"
        sections.append("\n".join((heading, *aligned(_rows(report), _WIDTH))))
        sections += (problem_text(finding.problem) for finding in report.findings)
    sections.append(_summary(reports, unreadable))
    return "\n\n".join(sections)


def _rows(report: LintReport) -> Iterator[Row]:
    if report.subject:
        yield "subject", [report.subject]
    count = len(report.findings)
    yield (
        "findings",
        [bad(str(count)) if count else good("none") if report.applied else "not looked at"],
    )
    if report.applied:
        profiles = ", ".join(report.profiles)
        held_to = f", held to {profiles}" if profiles else ""
        yield "applied", [f"{_lints(len(report.applied))}{held_to}"]
    reasons: dict[str, list[str]] = {}
    for unjudged in report.not_applied:
        reasons.setdefault(unjudged.why, []).append(unjudged.lint)
    if reasons:
        yield "not applied", [f"{', '.join(names)}: {why}" for why, names in reasons.items()]


def _summary(reports: Found, unreadable: Sequence[str]) -> str:
    count = sum(len(report.findings) for _, report in reports)
    applied = sum(len(report.applied) for _, report in reports)
    skipped = sum(len(report.not_applied) for _, report in reports)
    rest = f", {skipped} not" if skipped else ""
    lost = f", {len(unreadable)} could not be read" if unreadable else ""
    said = bad(f"{count} finding{'s' if count > 1 else ''}") if count else good("no findings")
    return f"{said}: {_lints(applied)} applied{rest}{lost}"


def _lints(count: int) -> str:
    return f"{count} lint{'s' if count != 1 else ''}"


def lint_json(reports: Found, unreadable: Sequence[str]) -> str:
    """An object with ``verdict`` and ``things``; with ``unreadable``, where something could not be read."""
    if any(report.findings for _, report in reports):
        verdict = "findings"
    else:
        verdict = "unreadable" if unreadable else "no findings"
    return json.dumps(
        {
            "verdict": verdict,
            "things": [_thing(source, report) for source, report in reports],
            **({"unreadable": list(unreadable)} if unreadable else {}),
        },
        indent=2,
    )


def _thing(source: str, report: LintReport) -> dict[str, object]:
    return {
        "source": source,
        "what": report.what,
        "subject": report.subject,
        "sha256": report.sha256 or None,
        "profiles": report.profiles,
        "problems": [
            {**problem_json(finding.problem), "lint": finding.lint} for finding in report.findings
        ],
        "applied": report.applied,
        "not_applied": [
            {"lint": unjudged.lint, "why": unjudged.why} for unjudged in report.not_applied
        ],
    }
