"""Bars as an SVG picture that can be read on a light page and on a dark one. Nothing is loaded to draw it."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from attrs import frozen

_WIDTH, _LABELS, _VALUES = 720, 250, 80
_BAR, _GAP, _TOP = 20, 8, 44
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.quiet{fill:#57606a}"
    ".ours{fill:#0969da}.other{fill:#8c959f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.ours{fill:#4493f8}.other{fill:#656c76}}"
)


@frozen
class Bar:
    """One of a chart."""

    label: str
    value: float
    is_ours: bool


def bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """A chart of lying bars, from zero."""
    most = max((bar.value for bar in values), default=0) or 1.0
    height = _TOP + len(values) * (_BAR + _GAP) + _GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="0" y="16">{escape(title)}</text>',
        f'<text class="quiet" x="0" y="34">{escape(unit)}</text>',
    ]
    for number, bar in enumerate(values):
        top = _TOP + number * (_BAR + _GAP)
        width = max(1.0, (_WIDTH - _LABELS - _VALUES) * bar.value / most)
        kind = "ours" if bar.is_ours else "other"
        lines += [
            f'<text x="{_LABELS - 8}" y="{top + 15}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'<text x="{_LABELS + width + 6:.1f}" y="{top + 15}">{_number(bar.value)}</text>',
        ]
    return "\n".join((*lines, "</svg>", ""))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
