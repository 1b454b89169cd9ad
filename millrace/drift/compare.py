"""Features and scores now against what they were: an alarm needs evidence and size.

Input drift says little about harm: it never starts a retraining by itself, and is there to explain what the labels
show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from millrace.drift.cells import chi_square, missing_rate
from millrace.drift.correction import Dial, holm
from millrace.drift.counts import Categories, Counts
from millrace.drift.evidence import Evidence, Method
from millrace.drift.kolmogorov_smirnov import kolmogorov_smirnov
from millrace.drift.reference import AnyReference
from millrace.errors import InvalidField


@dataclass(frozen=True, slots=True)
class Finding:
    """What one test says of one feature.

    Attributes
    ----------
    name
        Of the feature.
    evidence
        Of this test alone.
    adjusted
        The p-value among all tests of this look.
    least
        Effect below which there is no alarm.
    alarm
        Whether evidence and size are enough.
    """

    name: str
    evidence: Evidence
    adjusted: float
    least: float
    alarm: bool


def compare(
    references: Sequence[AnyReference],
    windows: Mapping[str, Counts],
    dial: Dial,
    numbers: Method = kolmogorov_smirnov,
    names: Method = chi_square,
) -> list[Finding]:
    """All findings, the largest effect first: of each feature one of its values and one of its missing ones.

    Parameters
    ----------
    windows
        Counts of each feature in its reference's cells, of a window that is as long as a block of the
        reference or several: within a day, an hour is no day.
    numbers, names
        The tests of numbers and of categories.

    Raises
    ------
    InvalidField
        If a window is not there or has other cells.
    """
    tested = [
        (reference.name, evidence, least)
        for reference in references
        for evidence, least in _tests(reference, _window(reference, windows), dial, numbers, names)
    ]
    adjusted = holm([evidence.p_value for _, evidence, _ in tested])
    family = dial.level * len(tested)
    findings = [
        Finding(name, evidence, p, least, p <= family and evidence.effect >= least)
        for (name, evidence, least), p in zip(tested, adjusted, strict=True)
    ]
    return sorted(findings, key=lambda finding: -finding.evidence.effect)


def _tests(
    reference: AnyReference, window: Counts, dial: Dial, numbers: Method, names: Method
) -> Iterator[tuple[Evidence, float]]:
    """Each test's evidence and the least effect of an alarm."""
    method = names if isinstance(reference.cells, Categories) else numbers
    yield method(reference, window, dial.level), dial.least_moved
    yield missing_rate(reference, window, dial.level), dial.least_missing


def _window(reference: AnyReference, windows: Mapping[str, Counts]) -> Counts:
    window = windows.get(reference.name)
    if window is None:
        raise InvalidField(f"windows[{reference.name}]", "not there", "counts of every feature with a reference")
    if window.cells.shape != (reference.cells.size,):
        raise InvalidField(f"windows[{reference.name}]", f"{window.cells.shape}", f"({reference.cells.size},) cells")
    return window
