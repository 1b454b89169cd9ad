"""One dial, *expected false alarms of a feature in a day*, turned into the level of each of many tests.

A test of level ``a`` that is made ``c`` times a day gives at most ``a c`` false alarms a day, whatever the looks have
in common, for expectations add up. Over the features of one look S. Holm, "A simple sequentially rejective multiple
test procedure" (Scandinavian Journal of Statistics 6, 1979) holds the probability of any false alarm to the sum of
their levels, whatever the features have in common. (Benjamini and Hochberg's procedure would promise that few *of the
alarms* are false; where nothing ever changes, all of them are.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.errors import InvalidField

TESTS = 2
"""Of each feature: its values, and how many are missing."""


@dataclass(frozen=True, slots=True)
class Dial:
    """How often an alarm may be false, and how small a change is none.

    Attributes
    ----------
    false_alarms_per_day
        Expected, of each feature. The default is one in 16,000 days: of 20 features that are looked at for
        six weeks, one run in twenty has any.
    looks_per_day
        How often all features are compared; every hour by default.
    least_moved
        Share of the values that has to be elsewhere: .05 is what an eighth of a standard deviation does to a normal
        distribution. Evidence of less is no alarm, for with enough values everything is different.
    least_missing
        Change of the share of missing values.
    """

    false_alarms_per_day: float = 1 / 16_000
    looks_per_day: float = 24.0
    least_moved: float = 0.05
    least_missing: float = 0.01

    def __post_init__(self) -> None:
        if not self.looks_per_day > 0:
            raise InvalidField("looks_per_day", f"{self.looks_per_day:g}", "above 0")
        if not 0 < self.false_alarms_per_day < self.looks_per_day:
            raise InvalidField("false_alarms_per_day", f"{self.false_alarms_per_day:g}", "above 0, below looks_per_day")
        for name, least in (("least_moved", self.least_moved), ("least_missing", self.least_missing)):
            if not 0 <= least <= 1:
                raise InvalidField(name, f"{least:g}", "0 to 1")

    @property
    def level(self) -> float:
        """Of each test at each look; every feature has ``TESTS``."""
        return self.false_alarms_per_day / self.looks_per_day / TESTS


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: those up to a level are rejected at that level for the family.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for left, at in zip(
        range(len(p_values), 0, -1), sorted(range(len(p_values)), key=p_values.__getitem__), strict=True
    ):
        largest = max(largest, min(left * p_values[at], 1.0))
        adjusted[at] = largest
    return adjusted
