"""Names of what is watched of the labels, the same in a model version's reference and in the detector."""

from __future__ import annotations

CLICK_THROUGH = "click_through"
"""Clicks by slot that was seen."""
CALIBRATION = "calibration"
"""Clicks by predicted click."""
LOG_LOSS = "log_loss"
"""Log loss by slot, as a share of ``LOSS_LIMIT``, at which each is cut."""
SCORE = "score"
"""Among the values: the model's scores of the slots that are served."""

LOSS_LIMIT = 7.0
"""Nats: of a click that was predicted with less than one in a thousand."""


def of_segment(measure: str, segment: str) -> str:
    """Name of a measure of one segment of users."""
    return f"{measure}:{segment}"
