"""What charts are drawn of, and figures that templates draw by themselves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Chart(NamedTuple):
    """A chart that a page keeps up to date: where its figure stands in a reading, and what it means."""

    group: str
    name: str
    title: str
    unit: str
    means: str


WIDTH, HEIGHT = 600.0, 180.0
"""Of a drawing, in its own units."""


@dataclass(frozen=True, slots=True)
class Band:
    """An interval over time, drawn: paths of its area and of its middle, and what the axis says.

    Attributes
    ----------
    zero
        Where no difference lies, from the top.
    low, high
        What the lower and the upper end of the drawing stand for.
    """

    area: str
    line: str
    zero: float
    low: float
    high: float
    from_ms: int
    to_ms: int


class Point(NamedTuple):
    """What was known at a time (Unix ms): an estimate, and the ends of its interval."""

    at_ms: int
    value: float
    low: float
    high: float


def band(points: Sequence[Point]) -> Band | None:
    """The drawing of an interval over time; None of fewer than two points.

    Intervals begin wide. What is drawn is what the newest half of them needs, with zero in it; wider ones are cut off.
    """
    if len(points) < 2 or points[-1].at_ms <= points[0].at_ms:
        return None
    newest = points[len(points) // 2 :]
    low, high = min(0.0, *(one.low for one in newest)), max(0.0, *(one.high for one in newest))
    margin = 0.06 * (high - low) or 0.01
    low, high = low - margin, high + margin
    began, lasted = points[0].at_ms, points[-1].at_ms - points[0].at_ms

    def place(at_ms: int, value: float) -> str:
        inside = min(max(value, low), high)
        return f"{WIDTH * (at_ms - began) / lasted:.1f} {_height(inside, low, high):.1f}"

    above = [place(one.at_ms, one.high) for one in points]
    below = [place(one.at_ms, one.low) for one in reversed(points)]
    middle = [place(one.at_ms, one.value) for one in points]
    return Band(
        f"M{'L'.join(above + below)}Z",
        f"M{'L'.join(middle)}",
        _height(0.0, low, high),
        low,
        high,
        began,
        began + lasted,
    )


def bars(
    counts: Sequence[float], width: float = 120.0, height: float = 34.0
) -> list[tuple[float, float, float, float]]:
    """A histogram, drawn: x, y, width and height of each bar; the highest one fills the height."""
    most, each = max(counts, default=0.0), width / max(1, len(counts))
    if not most:
        return []
    heights = [height * count / most for count in counts]
    return [
        (round(place * each, 2), round(height - tall, 2), round(each * 0.86, 2), round(tall, 2))
        for place, tall in enumerate(heights)
    ]


def _height(value: float, low: float, high: float) -> float:
    return HEIGHT * (high - value) / (high - low)
