"""Bodies of drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class Bars(BaseModel):
    """A histogram: one edge more than counts; both empty where there is none."""

    edges: list[float]
    counts: list[int]


class DriftEvidence(BaseModel):
    """What one test says of one feature or measure."""

    name: str
    method: str
    statistic: float | None
    threshold: float | None
    evidence: Annotated[
        float | None, Field(description="Of features a p-value among all of the look; of labels an e-value.")
    ]
    effect_size: float | None
    effect_min: Annotated[float | None, Field(description="Below it there is no alarm, whatever the evidence.")]
    alarm: bool
    model_weight: Annotated[float | None, Field(description="0: the version does not use the feature.")]
    before: Bars
    after: Bars


class Look(BaseModel):
    """The last comparison of a day's features and scores with the reference, the largest effect first."""

    from_ms: int
    to_ms: int
    findings: list[DriftEvidence]


class DriftMeasure(BaseModel):
    """Where the detector of one measure of the labels stands."""

    name: str
    segment: str | None
    outcomes: Annotated[int, Field(description="Since its last alarm, or since the version serves.")]
    before: float | None
    after: float | None
    evidence: Annotated[float | None, Field(description="Of a change; 1 is an alarm.")]


class Signal(BaseModel):
    """A drift, from its first moment to its last."""

    signal_id: str
    channel: str
    version: str
    segment: str | None
    holds: bool
    first_at_ms: int
    changed_at_ms: Annotated[int | None, Field(description="When the change began, as estimated, of labels.")]
    at_ms: int
    evidence: list[DriftEvidence]


class Drift(BaseModel):
    """What is watched, what was found, what was said."""

    model: str
    version: str | None
    watched: bool
    problem: Annotated[str | None, Field(description="Why nothing is watched.")]
    newest_ms: Annotated[int | None, Field(description="Serving time of the newest outcome that is included.")]
    false_alarms_per_day: float | None
    hours: Annotated[int, Field(description="Whole hours that a look could take now.")]
    hours_of_a_look: int
    look: Look | None
    measures: list[DriftMeasure]
    signals: Annotated[list[Signal], Field(description="The newest first.")]
