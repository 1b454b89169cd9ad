"""Features that the model does not use move: from outcomes to what the orchestrator does, by production's code.

A version with a reference serves. Its features have a daily season and levels that wander, as in
``benchmarks.drifting_features``; clicks follow its own scores. Some features have no weight. A day after it was
promoted these move; in the other kind of run clicks change as well, which has to begin a retraining.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.drift_loop.retraining import Fixed
from benchmarks.drifting_features import HOURS, KEPT, LEVEL, SEASON
from benchmarks.watched import Floats
from millrace.drift.storing import REFERENCE_FILE
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix
from millrace.ranking.first import first_ranker
from millrace.ranking.model import RankingModel
from millrace.registry.drift_signals import SignalBoard
from millrace.registry.ledger import fold
from millrace.registry.reconcile import Append, next_step
from millrace.registry.retraining import PROMOTED, REGISTERED
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, DriftSettings, RetrainSettings
from millrace.stream.worker import Record
from millrace.topics import DRIFT_SIGNALS
from millrace.training.measure import measure
from millrace.training.reference import count_clicks, count_values, make_reference
from millrace.training.slots import CLICKED, NO_SEGMENT, SKIPPED, SlotFile, slot_type
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome
from workers.drift_detector.stored import Stored
from workers.drift_detector.watched import Watched

MODEL, VERSION = "ranker", "1"
DAYS, WATCHED_DAYS = 28, 4
"""Of the reference; and those that the version serves, the first of them unchanged."""
ANSWERS, SHOWN = 10, 10
"""Answers of an hour, and slots of an answer."""
UNUSED = 6
"""Features without a weight, the first ones: half of them move."""
WEIGHT, RATE = 0.15, 0.06
"""Of the others, and of clicks where all features are as usual."""
MOVED, MORE_CLICKS = 1.0, 1.6
"""Standard deviations by which the unused ones move; and how many times as many clicks there are in runs where these
change, too."""
BEGAN_MS = 20_000 * DAY_MS
_SETTLE_MS = 35 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run led to.

    Attributes
    ----------
    reported
        Names of the features in signals.
    declined
        Why signals started nothing.
    labels
        Signals of labels.
    retrainings
        How many began.
    """

    reported: frozenset[str]
    declined: tuple[str, ...]
    labels: int
    retrainings: int


MOVING = frozenset(FEATURE_NAMES[: UNUSED // 2])


def ranker() -> RankingModel:
    """A version that uses all features but the first ones."""
    weights = np.full(len(FEATURE_NAMES), WEIGHT)
    weights[:UNUSED] = 0.0
    return replace(
        first_ranker(),
        weights=weights,
        means=np.zeros_like(weights),
        variances=np.ones_like(weights),
        intercept=float(np.log(RATE / (1 - RATE))),
        terms=(),
    )


def values(hours: int, rng: np.random.Generator) -> FloatMatrix:
    """Features of all slots of some hours, float32[hours, ANSWERS * SHOWN, d]."""
    d = len(FEATURE_NAMES)
    steps = rng.normal(0, LEVEL * (1 - KEPT**2) ** 0.5, (hours, d))
    steps[0] = rng.normal(0, LEVEL, d)
    level = np.empty((hours, d))
    for hour, step in enumerate(steps):
        level[hour] = step + (KEPT * level[hour - 1] if hour else 0.0)
    day = SEASON * np.sin(2 * np.pi * (np.arange(hours) % HOURS) / HOURS)
    drawn = rng.normal(size=(hours, ANSWERS * SHOWN, d)) + (level + day[:, None])[:, None, :]
    return drawn.astype(np.float32)


def watch(rng: np.random.Generator, more_clicks: float = 1.0, watched_days: int = WATCHED_DAYS) -> Seen:
    """One run, to its end."""
    model = ranker()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / VERSION
        folder.mkdir()
        model.save(folder)
        (folder / REFERENCE_FILE).write_bytes(reference_of(model, rng))
        reign = _event(PROMOTED, BEGAN_MS)
        watched = Watched(DriftSettings(sample=1.0), _SETTLE_MS, reign, folder, Stored())
        ledger, board, settings = fold(MODEL, [_event(REGISTERED, BEGAN_MS), reign]), SignalBoard(), RetrainSettings()
        heard: dict[str, DriftSignal] = {}
        drawn = values(watched_days * HOURS, rng)
        drawn[HOURS:, :, : len(MOVING)] += MOVED
        for hour, features in enumerate(drawn):
            now_ms = BEGAN_MS + (hour + 1) * HOUR_MS
            for outcome in _outcomes(hour, features, model, more_clicks if hour >= HOURS else 1.0, rng):
                watched.taking.take(outcome)
            watched.taking.count()
            for signal in (*watched.labels(), *watched.values(), *watched.signals.again(watched.watch.newest_ms)):
                heard[signal.signal_id] = signal
                board.take(Record(DRIFT_SIGNALS.name, 0, 0, None, signal, now_ms, (), None))
            while isinstance(
                step := next_step(ledger, (), None, now_ms, (), 0, board.holding(MODEL, now_ms), settings), Append
            ):
                ledger.apply(step.event)
    labels = [one for one in heard.values() if one.channel == DriftChannel.DRIFT_CHANNEL_PERFORMANCE]
    inputs = [one for one in heard.values() if one.channel == DriftChannel.DRIFT_CHANNEL_INPUT]
    return Seen(
        frozenset(evidence.name for one in inputs for evidence in one.evidence),
        tuple(event.reason for event in ledger.retrainings.declined),
        len(labels),
        ledger.retrainings.count,
    )


def reference_of(model: RankingModel, rng: np.random.Generator) -> bytes:
    """What the training job would say of four weeks in which nothing moved."""
    drawn = values(DAYS * HOURS, rng)
    with tempfile.TemporaryDirectory() as name, SlotFile(Path(name) / "slots", len(FEATURE_NAMES)) as slots:
        for hour, features in enumerate(drawn):
            part = np.zeros(len(features), dtype=slot_type(len(FEATURE_NAMES)))
            part["features"], part["served"], part["segment"] = features, True, NO_SEGMENT
            part["label"] = np.where(rng.random(len(features)) < model.score(features), CLICKED, SKIPPED)
            part["served_ms"] = part["appended_ms"] = BEGAN_MS + (hour - DAYS * HOURS) * HOUR_MS
            slots.append(part)
        newest = len(slots) * 4 // 5
        measured = measure({MODEL: Fixed(model)}, slots, newest, len(slots))
        found = make_reference(count_values(slots, newest, model), count_clicks(slots), measured.hours[MODEL])
    return found.to_bytes()


def _outcomes(
    hour: int, features: FloatMatrix, model: RankingModel, times: float, rng: np.random.Generator
) -> Iterator[Outcome]:
    """Answers of an hour, all slots seen and decided."""
    scores = model.score(features)
    clicked: npt.NDArray[np.bool_] = rng.random(len(scores)) < np.minimum(times * scores.astype(float), 1.0)
    at_ms: Floats = BEGAN_MS + hour * HOUR_MS + np.sort(rng.random(ANSWERS)) * HOUR_MS
    for answer, served_ms in enumerate(at_ms.astype(int).tolist()):
        here = slice(answer * SHOWN, (answer + 1) * SHOWN)
        impression = Impression(
            request_id=f"{hour}-{answer}",
            served_at_ms=served_ms,
            model_name=MODEL,
            model_version=VERSION,
            feature_schema=FEATURE_SCHEMA,
        )
        yield Outcome(
            request_id=impression.request_id,
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
            impression=impression,
            slots=[
                DecidedSlot(
                    slot=Slot(item_id=f"i{place}", rank=place, score=score, features=row),
                    label=Label.LABEL_POSITIVE if click else Label.LABEL_NEGATIVE,
                )
                for place, (score, row, click) in enumerate(
                    zip(scores[here].tolist(), features[here].tolist(), clicked[here].tolist(), strict=True)
                )
            ],
        )


def _event(kind: ModelEventType.ValueType, at_ms: int) -> ModelEvent:
    return ModelEvent(event_id=f"{kind}", model_name=MODEL, model_version=VERSION, type=kind, at_ms=at_ms)
