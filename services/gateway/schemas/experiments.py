"""Bodies of experiments, by the names of experiment.proto."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from services.gateway.schemas.base import Given, Id, Text, Told


class Arm(Given):
    """One of the alternatives."""

    name: Id
    model_version: Annotated[str, Field(description="Empty: the champion.")] = ""
    settings: Annotated[dict[str, str], Field(default_factory=dict, description="What differs from the defaults.")]
    share: Annotated[float, Field(description="Of the experiment's traffic; all add up to 1.")]
    control: Annotated[bool, Field(description="Exactly one is.")] = False


class Guardrails(Given):
    """Bounds on harm; 0 is not looked at."""

    fallback_margin: float = 0
    slow_micros: int = 0
    slow_margin: float = 0
    coverage_margin: float = 0
    click_floor: float = 0


class Definition(Given):
    """What is compared, on whom, and by which rule: ExperimentDefinition of experiment.proto. 0 takes the default."""

    experiment_id: Id
    description: str = ""
    salt: Text = ""
    layer: Text = ""
    model_name: Text = ""
    traffic: Annotated[float, Field(description="Share of all users that takes part.")]
    policy: Literal["ALLOCATION_POLICY_UNSPECIFIED", "ALLOCATION_POLICY_FIXED", "ALLOCATION_POLICY_THOMPSON"] = (
        "ALLOCATION_POLICY_UNSPECIFIED"
    )
    arms: list[Arm]
    alpha: float = 0
    minimum_users: int = 0
    minimum_duration_ms: int = 0
    conversion_window_ms: int = 0
    period_ms: int = 0
    floor: float = 0
    expected_rate: float = 0
    expected_lift: float = 0
    worthwhile: float = 0
    guardrails: Guardrails = Guardrails()
    reward: Literal["REWARD_UNSPECIFIED", "REWARD_CLICKS", "REWARD_VALUE"] = "REWARD_UNSPECIFIED"
    earlier_activity: bool = False
    reason: Annotated[str, Field(description="Why, for people and the audit.")] = ""


class ExperimentRecord(Told):
    """The tracker's record by the contract's names, and what follows from it."""

    definition: dict[str, Any]
    state: str
    intervals: dict[str, Any]
    remaining_ms: dict[str, float | None]
    in_words: list[str]


class Experiments(BaseModel):
    """All of them."""

    experiments: list[ExperimentRecord]
