"""What an arm is: a version, a checkpoint or the champion as it learns, with settings of candidates and ranking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from millrace.errors import InvalidField
from millrace.v1.experiment_pb2 import Arm

LATEST = "latest"
"""As a checkpoint: the newest one when the experiment starts, so that the arm is frozen since then."""

# Name of a setting -> least and most; the names are those of RecommenderSettings.
LIMITS: Mapping[str, tuple[int, int]] = {
    "candidates_max": (1, 10_000),
    "context_items": (0, 1_000),
    "session_items": (0, 1_000),
    "trending_items": (0, 10_000),
    "fresh_items": (0, 1_000),
}
# The others -> what they may be.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "parameters": ("live", "registered"),
    "ranking": ("model", "popular"),
    "repeat_policy": ("learned", "exclude"),
}
_CHECKPOINT = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """How an arm is served.

    Attributes
    ----------
    version
        In the registry; empty: the champion.
    checkpoint
        State of the learner that the arm stands still at; empty: none.
    registered
        Whether it ranks as it was registered, also while it is the champion and learns.
    popular
        Whether popularity ranks in place of a model.
    limits
        Numbers of candidates that differ from the settings, by their names there.
    repeats
        Whether items that the user knows are shown; None: as the setting says.
    """

    version: str = ""
    checkpoint: str = ""
    registered: bool = False
    popular: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    repeats: bool | None = None

    @property
    def frozen(self) -> bool:
        """Whether it does not learn while the experiment runs, whoever is the champion."""
        return bool(self.checkpoint) or self.registered or self.popular


def read_arm(arm: Arm) -> ArmPlan:
    """How the arm is served. Raises InvalidField, which names the setting as ``settings[NAME]``."""
    settings = dict(arm.settings)
    checkpoint = settings.pop("checkpoint", "")
    if checkpoint and checkpoint != LATEST and _CHECKPOINT.fullmatch(checkpoint) is None:
        raise InvalidField("settings[checkpoint]", repr(checkpoint), f"VERSION.EPOCH.SEQUENCE, or {LATEST}")
    if arm.model_version and not (arm.model_version.isascii() and arm.model_version.isdigit()):
        raise InvalidField("model_version", repr(arm.model_version), "a number as the registry gives it")
    chosen = {name: _choice(name, settings.pop(name, among[0]), among) for name, among in _CHOICES.items()}
    repeats = {"learned": True, "exclude": False}[chosen["repeat_policy"]] if "repeat_policy" in arm.settings else None
    plan = ArmPlan(
        version=arm.model_version,
        checkpoint=checkpoint,
        registered=chosen["parameters"] == "registered",
        popular=chosen["ranking"] == "popular",
        limits={name: _number(name, value) for name, value in settings.items()},
        repeats=repeats,
    )
    if checkpoint and arm.model_version:
        raise InvalidField("settings[checkpoint]", "beside a model_version", "one of the two")
    if sum((bool(plan.checkpoint), plan.registered, plan.popular)) > 1:
        raise InvalidField("settings", ", ".join(sorted(arm.settings)), "one of checkpoint, parameters and ranking")
    return plan


def _choice(name: str, value: str, among: tuple[str, ...]) -> str:
    if value not in among:
        raise InvalidField(f"settings[{name}]", repr(value), " or ".join(among))
    return value


def _number(name: str, value: str) -> int:
    if name not in LIMITS:
        raise InvalidField(f"settings[{name}]", "unknown", ", ".join(("checkpoint", *_CHOICES, *LIMITS)))
    least, most = LIMITS[name]
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise InvalidField(f"settings[{name}]", repr(value), f"{least} to {most}")
    return int(value)
