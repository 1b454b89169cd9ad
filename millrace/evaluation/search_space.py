"""Settings that a search may choose: those that figures follow from, each with the values that are worth trying.

Values lie far apart, for a pass tells small steps from chance no better than they matter, and none of them takes a
request out of its budget. Nothing here knows a data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TypeAlias

from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, Settings

Value: TypeAlias = float
Choice: TypeAlias = Mapping[str, Value]
"""Variable, for example ``MILLRACE_FEATURES_NEIGHBOURS_KEPT``, -> value; what it does not name stays as it is."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting with values to try, ascending.

    Attributes
    ----------
    group, field
        Where ``Settings`` has it.
    costs
        What a larger value costs in production, for people; empty if nothing to speak of.
    """

    group: str
    field: str
    values: tuple[Value, ...]
    costs: str = ""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"{Settings.groups[self.group].model_config['env_prefix']}{self.field}".upper()

    def now(self, settings: Settings) -> Value:
        """The value in force."""
        value: Value = getattr(getattr(settings, self.group), self.field)
        return value

    def beside(self, value: Value, step: int) -> Value | None:
        """The next larger value (``step`` 1) or smaller one (-1) to try; None at the end."""
        further = [one for one in self.values if (one > value if step > 0 else one < value)]
        return None if not further else min(further) if step > 0 else max(further)


# What moved figures most comes first: a search whose budget is small gets no further.
SPACE: Sequence[Axis] = (
    Axis("features", "neighbour_half_life_ms", (HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 60 * DAY_MS)),
    Axis("features", "backward_weight", (0.0, 0.2, 0.5), "a third of the feature updater's throughput if not 0"),
    Axis("joiner", "organic_negatives", (4, 10, 30), "a slot each in `outcomes`, to be stored and learned"),
    Axis("features", "half_life_long_ms", (2 * HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 60 * DAY_MS)),
    Axis("features", "session_context", (2, 5, 10), "a neighbour each to write for every event"),
    Axis("recommender", "context_items", (3, 10, 20)),
    Axis("recommender", "session_items", (10, 40), "time of a request"),
    Axis("recommender", "context_half_life_ms", (HOUR_MS // 2, 2 * HOUR_MS, DAY_MS, 30 * DAY_MS)),
    Axis("features", "half_life_short_ms", (2 * MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, DAY_MS)),
    Axis("features", "neighbours_kept", (25, 50, 100), "memory of every recommender, and time of a request"),
    Axis("recommender", "trending_items", (50, 100, 200)),
)


def chosen(settings: Settings, choice: Choice, axes: Sequence[Axis] = SPACE) -> Settings:
    """Settings with a choice in force. Raises MillraceError where a value is not allowed."""
    found = copy(settings)
    for group in {axis.group for axis in axes}:
        values = getattr(settings, group).model_dump()
        values |= {
            axis.field: choice[axis.variable] for axis in axes if axis.group == group and axis.variable in choice
        }
        setattr(found, group, Settings.groups[group](**values))
    return found
