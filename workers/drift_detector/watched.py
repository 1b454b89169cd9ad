"""The champion under watch: what is counted of what it serves, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import structlog

from millrace.drift.correction import Dial
from millrace.drift.signals import Signals
from millrace.drift.storing import REFERENCE_FILE, ModelReference, UnusableReference
from millrace.drift.watch import Watch
from millrace.errors import MillraceError
from millrace.ranking.model import RankingModel
from millrace.settings import DAY_MS, HOUR_MS, DriftSettings
from millrace.v1.detector_pb2 import WatchedLook, WatchedMeasure
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.model_pb2 import ModelEvent
from workers.drift_detector import metrics
from workers.drift_detector.stored import Stored, unpack
from workers.drift_detector.taking import Taking

log = structlog.stdlib.get_logger(__name__)


class UnusableState(MillraceError):
    """What was counted before does not fit the version's reference, for example after a change of the code."""


class Watched:
    """One reign of a version.

    Parameters
    ----------
    settle_ms
        After so long every label of a served slot is known.
    folder
        With the version's files.
    stored
        What was written of this reign; nothing, to begin.

    Raises
    ------
    UnusableReference, UnusableModel
        The version cannot be watched.
    UnusableState
        It cannot go on from what was stored.
    """

    def __init__(
        self, settings: DriftSettings, settle_ms: int, reign: ModelEvent, folder: Path, stored: Stored
    ) -> None:
        self._model_name, self._reign_id = settings.model_name, reign.event_id
        model = RankingModel.load(folder)
        reference = _reference(folder, reign.model_version)
        dial = Dial(settings.false_alarms_per_day, DAY_MS / settings.check_interval_ms)
        self.watch = Watch(reference, dial, settle_ms)
        self.taking = Taking(self.watch, settings.sample)
        # The last look, until it is written.
        self.look: WatchedLook | None = None
        self.signals = Signals(
            settings.model_name, reign.model_version, reign.event_id, _weights(model), settings.false_alarms_per_day
        )
        # Nothing was counted while the reign's version had no reference.
        if stored.rest is not None and stored.rest.labels:
            try:
                hours = {hour: unpack(self.watch, content) for hour, content in stored.hours.items()}
                labels = json.loads(stored.rest.labels)
            except ValueError as error:
                raise UnusableState(f"hours or labels: {error}") from error
            if set(labels["labels"]) != set(reference.labels):
                raise UnusableState(f"of measures {', '.join(labels['labels'])}, not {', '.join(reference.labels)}")
            self.watch.resume(labels, hours)
            self.signals.resume(stored.rest.holding)

    def labels(self) -> list[DriftSignal]:
        """What the labels say that are settled by now: signals that begin, and those that are over."""
        said = []
        for measure, change, at_ms in self.watch.settle():
            said.append(self.signals.of_change(measure, change, at_ms))
            log.warning("labels changed", measure=measure, effect=f"{change.effect:+.0%}", outcomes=change.since)
        for measure in self.watch.reference.labels:
            over = self.signals.over(measure, self.watch.outcomes(measure), self.watch.newest_ms)
            if over is not None:
                said.append(over)
        return said

    def values(self) -> list[DriftSignal]:
        """What a look at features and scores says; nothing until a whole day has been seen."""
        findings, window = self.watch.look(), self.watch.window()
        if findings is None or window is None:
            return []
        metrics.LOOKS.labels(self._model_name).inc()
        by_name = {each.name: each for each in self.watch.values}
        end_ms = self.watch.newest_ms // HOUR_MS * HOUR_MS
        self.look = WatchedLook(
            reign_id=self._reign_id,
            from_ms=end_ms - DAY_MS,
            to_ms=end_ms,
            findings=[self.signals.evidence(one, by_name[one.name], window[one.name]) for one in findings],
        )
        said = self.signals.of_values(findings, self.watch.values, window, self.watch.newest_ms)
        for signal in said:
            names = [each.name for each in signal.evidence]
            log.warning("values moved" if signal.holds else "values are back", channel=signal.channel, features=names)
        return said

    def measures(self) -> list[WatchedMeasure]:
        """Where the detectors of labels stand, for people."""
        found = []
        for one in self.watch.standings():
            name, _, segment = one.measure.partition(":")
            found.append(WatchedMeasure(name=name, segment=segment, outcomes=one.outcomes, evidence=one.evidence))
            found[-1].before, found[-1].after = one.before, one.after
        return found


def _weights(model: RankingModel) -> dict[str, float]:
    """Of each feature, the largest weight of the columns that are made of it: 0 only if it is not used at all."""
    found = dict(zip(model.columns, model.weights.tolist(), strict=True))
    for term in model.terms:
        for feature in term.features:
            found[feature] = max(found[feature], found[term.name], key=abs)
    return {feature: found[feature] for feature in model.feature_names}


def _reference(folder: Path, version: str) -> ModelReference:
    """Raises UnusableReference where there is none, or a damaged one."""
    path = folder / REFERENCE_FILE
    if not path.exists():
        raise UnusableReference(
            f"version {version} has no reference: it was not made by a training job, and nothing is known of its time"
        )
    try:
        return ModelReference.from_bytes(path.read_bytes())
    except OSError as error:
        raise UnusableReference(f"version {version}: {error}") from error
