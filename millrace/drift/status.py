"""What the drift detector knows and said of one model: read from its topics, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from millrace.v1.detector_pb2 import DetectorState, WatchedLook, WatchedMeasure, WatchedRest
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal, Histogram

SIGNALS_READ = 2_000
"""Newest records of ``drift-signals`` that are read: one that holds is said again every minute, 1,440 times a day."""
SIGNALS_KEPT = 50
"""Signals that are remembered, those that were said last."""
HOURS_OF_A_LOOK = 24

CHANNELS: Mapping[DriftChannel.ValueType, str] = {
    DriftChannel.DRIFT_CHANNEL_INPUT: "input",
    DriftChannel.DRIFT_CHANNEL_PREDICTION: "prediction",
    DriftChannel.DRIFT_CHANNEL_PERFORMANCE: "performance",
}


@dataclass(slots=True)
class DriftStatus:
    """A read model. Taking a record twice changes nothing.

    Attributes
    ----------
    rest, look
        What the detector wrote last; None before.
    signals
        Signal id -> its newest repetition, the one said last at the end.
    """

    model_name: str
    rest: WatchedRest | None = None
    look: WatchedLook | None = None
    signals: dict[str, DriftSignal] = field(default_factory=dict)

    def take(self, message: DetectorState | DriftSignal) -> None:
        """The next record of either topic that is about this model."""
        if isinstance(message, DriftSignal):
            self.signals.pop(message.signal_id, None)
            self.signals[message.signal_id] = message
            if len(self.signals) > SIGNALS_KEPT:
                del self.signals[next(iter(self.signals))]
        elif message.WhichOneof("part") == "rest":
            self.rest = message.rest
        elif message.WhichOneof("part") == "look":
            self.look = message.look

    def as_dict(self) -> dict[str, Any]:
        """The status as JSON has it; what there is not yet is null."""
        rest = self.rest or WatchedRest()
        holding = {signal.signal_id for signal in rest.holding}
        look = self.look if self.look is not None and self.look.reign_id == rest.reign_id else None
        known = {**self.signals, **{signal.signal_id: signal for signal in rest.holding}}
        return {
            "model": self.model_name,
            "version": rest.model_version or None,
            "watched": self.rest is not None and not rest.not_watched,
            "problem": _problem(self.rest),
            "newest_ms": rest.newest_ms or None,
            "false_alarms_per_day": rest.false_alarms_per_day or None,
            "hours": rest.hours,
            "hours_of_a_look": HOURS_OF_A_LOOK,
            "look": look and _look(look),
            "measures": [_measure(one) for one in rest.measures],
            "signals": [_signal(one, one.signal_id in holding) for one in reversed(known.values())],
        }


def model_of(message: Message | None, key: bytes | None) -> str | None:
    """Name of the model that a record of either topic is about; None if it is about none."""
    if isinstance(message, DriftSignal):
        return message.model_name
    if isinstance(message, DetectorState):
        return (key or b"").decode("utf-8", "replace").rpartition("/")[0]
    return None


def _problem(rest: WatchedRest | None) -> str | None:
    """Why nothing is watched."""
    if rest is None:
        return "the drift detector has written nothing of this model yet"
    return rest.not_watched or None


def _look(look: WatchedLook) -> dict[str, Any]:
    return {
        "from_ms": look.from_ms,
        "to_ms": look.to_ms,
        "findings": [_evidence(one) for one in look.findings],
    }


def _measure(one: WatchedMeasure) -> dict[str, Any]:
    return {
        "name": one.name,
        "segment": one.segment or None,
        "outcomes": one.outcomes,
        "before": _number(one.before),
        "after": _number(one.after),
        "evidence": _number(one.evidence),
    }


def _signal(signal: DriftSignal, holds: bool) -> dict[str, Any]:
    """``holds``: by the detector's own state; a signal of an earlier champion is over, though nobody said so."""
    return {
        "signal_id": signal.signal_id,
        "channel": CHANNELS.get(signal.channel, "unknown"),
        "version": signal.model_version,
        "segment": signal.segment or None,
        "holds": holds,
        "first_at_ms": signal.first_at_ms,
        "changed_at_ms": signal.changed_at_ms or None,
        "at_ms": signal.at_ms,
        "evidence": [_evidence(one) for one in signal.evidence],
    }


def _evidence(one: DriftEvidence) -> dict[str, Any]:
    return {
        "name": one.name,
        "method": one.method,
        "statistic": _number(one.statistic),
        "threshold": _number(one.threshold),
        "evidence": _number(one.evidence),
        "effect_size": _number(one.effect_size),
        "effect_min": _number(one.effect_min),
        "alarm": one.alarm,
        "model_weight": _number(one.model_weight),
        "before": _histogram(one.before),
        "after": _histogram(one.after),
    }


def _histogram(drawn: Histogram) -> dict[str, Any]:
    return {"edges": list(drawn.edges), "counts": list(drawn.counts)}


def _number(value: float) -> float | None:
    """JSON has no others."""
    return value if math.isfinite(value) else None
