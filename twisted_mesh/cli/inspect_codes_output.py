"""What ``pki-inspect explain`` prints: codes with their meaning and remedy, for people and for programs."""

import json
from collections.abc import Iterable, Sequence

import click

from pki.codes import Code
from twisted_mesh.cli.inspect_output import aligned


def codes_text(codes: Sequence[Code]) -> str:
    """``explain`` for people: a section for each code."""
    return "\n\n".join(
        "\n".join(
            (
                click.style(code, bold=True),
                *aligned(
                    [("meaning", [_plain(code.meaning)]), ("remedy", [_plain(code.remedy)])], 7
                ),
            )
        )
        for code in codes
    )


def codes_list(codes: Iterable[Code]) -> str:
    """``explain`` of nothing for people: a line for each code, with its meaning."""
    rows = [(str(code), [_plain(code.meaning)]) for code in codes]
    return "\n".join(aligned(rows, max(len(label) for label, _ in rows)))


def codes_json(codes: Iterable[Code]) -> str:
    """``explain`` for programs: an array of objects with ``code``, ``meaning`` and ``remedy``."""
    return json.dumps(
        [
            {"code": code, "meaning": _plain(code.meaning), "remedy": _plain(code.remedy)}
            for code in codes
        ],
        indent=2,
    )


def _plain(text: str) -> str:
    """Without the marks that documents have around what is typed."""
    return text.replace("`", "")
