"""Bodies of models and of online learning."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from services.gateway.schemas.base import Reason, Sent


class RollBack(Reason):
    """Where to go back to."""

    version: Annotated[str, Field(description="Empty: that of the checkpoint, or the champion before.")] = ""
    checkpoint_id: Annotated[str, Field(description="A checkpoint of the learner; empty: none.")] = ""


class Reign(Sent):
    """A promotion or rollback."""

    version: str
    at_ms: int
    reason: str
    previous_version: str | None
    checkpoint_id: str | None


class Update(Sent):
    """A parameter update of the learner."""

    version: str
    epoch: int
    sequence: int
    examples: int
    at_ms: int


class LastUpdate(BaseModel):
    """The newest parameter update."""

    version: str
    epoch: int
    sequence: int
    examples: Annotated[int, Field(description="Slots learned in this epoch.")]
    at_ms: int
    age_ms: int


class Buffer(BaseModel):
    """How full the learner's buffer was when it was learned."""

    slots: int
    slots_max: int
    utilisation: float | None


class LearningStatus(BaseModel):
    """How a model learns; null where it has not learned lately."""

    model: str
    last_update: LastUpdate | None
    updates_per_s: Annotated[float, Field(description="Of the last ten seconds.")]
    buffer: Buffer | None
    checkpoints: Annotated[list[dict[str, Any]], Field(description="The newest first.")]


class Models(BaseModel):
    """All versions, and who serves."""

    model: str
    champion: dict[str, Any] | None
    former_champions: list[str]
    versions: list[dict[str, Any]]
    failed_a_gate: Annotated[list[dict[str, Any]], Field(description="Never served; with what they failed by.")]


class RetrainingStarted(Sent):
    """A retraining has begun."""

    retraining_id: str
    at_ms: int
    reason: str


class RetrainingStatus(BaseModel):
    """How retraining stands; null where there is none."""

    model: str
    state: Annotated[str, Field(description="idle, collecting, training, evaluating, shadow or challenger.")]
    champion: str | None
    newest: Annotated[
        dict[str, Any] | None, Field(description="Under way, or the last one: promoted, rejected or failed, and why.")
    ]
    count: int
    in_vain: Annotated[int, Field(description="In a row, started by drift, without a promotion.")]
    waits: Annotated[list[str], Field(description="Why nothing happens now.")]
    next_by_schedule_ms: int | None
    holding: Annotated[list[dict[str, Any]], Field(description="Drift signals that hold.")]
    declined: Annotated[list[dict[str, Any]], Field(description="Signals that started nothing; the newest first.")]
