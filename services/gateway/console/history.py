"""What an experiment knew as time went by: read from the records that its topic still keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millrace.experiments.outlook import relative_intervals
from millrace.settings import Settings
from millrace.topics import EXPERIMENTS
from millrace.v1.experiment_pb2 import Experiment
from services.gateway.console.charts import Point
from services.gateway.console.reading import SCANNED_MAX, Found, Place, read_piece

POINTS = 160
"""Of a drawing: more than its pixels show."""


def history(settings: Settings, experiment_id: str) -> dict[str, list[Point]]:
    """Of each challenger, its interval over time. Takes some tenths of a second. Raises InfrastructureError."""

    def told(found: Found) -> bool:
        message = found.record.message
        return isinstance(message, Experiment) and bool(message.figures)

    place = Place(newest=SCANNED_MAX)
    piece = read_piece(settings, EXPERIMENTS, place, SCANNED_MAX, told, key=experiment_id.encode())
    records = [one.record.message for one in piece.found if isinstance(one.record.message, Experiment)]
    return points(thinned(records))


def points(records: Iterable[Experiment]) -> dict[str, list[Point]]:
    """Of each challenger, what each record says; what it says at the same time again is left out."""
    found: dict[str, list[Point]] = {}
    for record in records:
        at_ms = record.decision.at_ms
        for arm, (effect, low, high) in relative_intervals(record).items():
            line = found.setdefault(arm, [])
            if not line or at_ms > line[-1].at_ms:
                line.append(Point(at_ms, effect, low, high))
    return found


def thinned(records: Sequence[Experiment]) -> list[Experiment]:
    """As many as are drawn, evenly, with the newest among them."""
    step = -(-len(records) // POINTS) or 1
    return list(records[::-1][::step])[::-1]
