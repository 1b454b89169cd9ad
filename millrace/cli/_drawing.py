"""Pictures in characters: intervals around zero, bars to both sides, a line of counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH = 41
"""Of intervals and bars; odd, for zero is in the middle."""
# Ends of the drawing of relative differences.
_SCALES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BLOCKS = " ▁▂▃▄▅▆▇█"


def fitting_scale(values: Iterable[float]) -> float:
    """The end of a scale around zero: the narrowest of some that holds relative differences; arrows point beyond."""
    widest = max((abs(value) for value in values), default=0.0)
    return next((scale for scale in _SCALES if scale >= widest), _SCALES[-1])


def interval(low: float, value: float, high: float, scale: float, truth: float | None = None) -> str:
    """An interval on a scale from ``-scale`` to ``scale``; a diamond where the truth is known to be."""
    line = [" "] * WIDTH
    line[WIDTH // 2] = "│"
    first, last = _place(low, scale), _place(high, scale)
    line[first : last + 1] = "─" * (last + 1 - first)
    line[first] = "├" if low >= -scale else "◄"
    line[last] = "┤" if high <= scale else "►"
    line[_place(value, scale)] = "●"
    if truth is not None:
        line[_place(truth, scale)] = "◆"
    return "".join(line)


def ends(left: str, right: str) -> str:
    """The scale below intervals."""
    return f"{left:<{WIDTH // 2}}0{right:>{WIDTH // 2}}"


def bar(value: float, scale: float, width: int = WIDTH) -> str:
    """A bar from the middle to the left or right, as long as ``value`` is of ``scale``."""
    half = width // 2
    length = min(half, round(abs(value) / scale * half)) if scale > 0 else 0
    left = "█" * length if value < 0 else ""
    right = "█" * length if value > 0 else ""
    return f"{left:>{half}}│{right:<{half}}"


def columns(counts: Sequence[float]) -> str:
    """A histogram in one line, the highest column full; what is not empty is seen."""
    most = max(counts, default=0.0)
    if most <= 0:
        return " " * len(counts)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[max(1, round(count / most * steps)) if count > 0 else 0] for count in counts)


def _place(value: float, scale: float) -> int:
    return min(WIDTH - 1, max(0, round((value / scale + 1) / 2 * (WIDTH - 1))))
