"""What the watch finds, as the records on ``drift-signals``: one signal for as long as the same drift holds."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from millrace.drift.compare import Finding
from millrace.drift.counts import Counts, Edges
from millrace.drift.detector import Change
from millrace.drift.measures import SCORE, of_segment
from millrace.drift.reference import AnyReference
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal, Histogram

BARS = 16
"""Of a histogram for people: neighbouring cells of the reference are put together."""
HOLDS_FOR = 4
"""A change of labels holds until so many times the outcomes that showed it came without another alarm."""

INPUT = DriftChannel.DRIFT_CHANNEL_INPUT
PREDICTION = DriftChannel.DRIFT_CHANNEL_PREDICTION
PERFORMANCE = DriftChannel.DRIFT_CHANNEL_PERFORMANCE

_NAMESPACE = uuid.UUID("f1b9a6c4-2f5e-4c64-9d0c-6a1f0e2b7d35")


class Signals:
    """The signals of one reign of a version.

    Parameters
    ----------
    reign_id
        Of the promotion or rollback.
    weights
        Feature -> its weight in the version, standardised: one that is not used has 0.

    Attributes
    ----------
    holding
        What holds, by channel and measure.
    """

    def __init__(
        self, model_name: str, version: str, reign_id: str, weights: Mapping[str, float], false_alarms_per_day: float
    ) -> None:
        self._model_name, self._version, self._reign_id = model_name, version, reign_id
        self._weights, self._false_alarms_per_day = weights, false_alarms_per_day
        self.holding: dict[str, DriftSignal] = {}

    def of_values(
        self,
        findings: Sequence[Finding],
        references: Iterable[AnyReference],
        window: Mapping[str, Counts],
        at_ms: int,
    ) -> list[DriftSignal]:
        """What a look says: signals that begin, hold, or are over (``holds`` is false)."""
        by_name = {reference.name: reference for reference in references}
        said = []
        for channel in (INPUT, PREDICTION):
            alarms = [one for one in findings if one.alarm and (one.name == SCORE) == (channel == PREDICTION)]
            evidence = [self.evidence(one, by_name[one.name], window[one.name]) for one in alarms]
            signal = self._say(channel, "", evidence, at_ms)
            if signal is not None:
                said.append(signal)
        return said

    def of_change(self, measure: str, change: Change, at_ms: int) -> DriftSignal:
        """What an alarm of a label's detector says."""
        name, _, segment = measure.partition(":")
        evidence = DriftEvidence(
            name=name,
            method="e-detector",
            statistic=change.evidence or 0.0,
            threshold=1.0,
            evidence=change.evidence or 0.0,
            effect_size=change.effect,
            alarm=True,
            after=Histogram(edges=[0, 1], counts=[change.since]),
        )
        begins = _key(PERFORMANCE, measure) not in self.holding
        signal = self._say(PERFORMANCE, measure, [evidence], at_ms)
        assert signal is not None
        signal.segment = segment
        if begins:
            # Later alarms are of detectors that began anew at the one before: they never saw the beginning.
            signal.changed_at_ms = change.since_ms
        return signal

    def over(self, measure: str, outcomes: int, at_ms: int) -> DriftSignal | None:
        """The end of a measure's signal, if so many outcomes without an alarm are enough; None if it goes on."""
        held = self.holding.get(_key(PERFORMANCE, measure))
        if held is None or outcomes < HOLDS_FOR * held.evidence[0].after.counts[0]:
            return None
        return self._say(PERFORMANCE, measure, [], at_ms)

    def again(self, at_ms: int) -> list[DriftSignal]:
        """Everything that holds, said again."""
        for signal in self.holding.values():
            signal.at_ms = max(at_ms, signal.at_ms)
        return list(self.holding.values())

    def resume(self, holding: Iterable[DriftSignal]) -> None:
        """Go on with what held."""
        for signal in holding:
            kept = DriftSignal()
            kept.CopyFrom(signal)
            name = signal.evidence[0].name if signal.channel == PERFORMANCE else ""
            self.holding[_key(signal.channel, of_segment(name, signal.segment) if signal.segment else name)] = kept

    def _say(
        self, channel: DriftChannel.ValueType, measure: str, evidence: Sequence[DriftEvidence], at_ms: int
    ) -> DriftSignal | None:
        key = _key(channel, measure)
        signal = self.holding.get(key)
        if signal is None:
            if not evidence:
                return None
            signal = self.holding[key] = DriftSignal(
                signal_id=str(uuid.uuid5(_NAMESPACE, f"{self._reign_id}\0{key}\0{at_ms}")),
                model_name=self._model_name,
                model_version=self._version,
                channel=channel,
                first_at_ms=at_ms,
                false_alarms_per_day=self._false_alarms_per_day,
            )
        signal.at_ms, signal.holds = at_ms, bool(evidence)
        if evidence:
            del signal.evidence[:]
            signal.evidence.extend(evidence)
        else:
            del self.holding[key]
        return signal

    def evidence(self, finding: Finding, reference: AnyReference, window: Counts) -> DriftEvidence:
        """A finding as a signal has it."""
        found = finding.evidence
        return DriftEvidence(
            name=finding.name,
            method=found.method,
            statistic=found.statistic,
            threshold=found.threshold,
            evidence=finding.adjusted,
            effect_size=found.effect,
            effect_min=finding.least,
            alarm=finding.alarm,
            model_weight=self._weights.get(finding.name, 0.0),
            before=_histogram(reference, reference.counts),
            after=_histogram(reference, window),
        )


def _histogram(reference: AnyReference, counts: Counts) -> Histogram:
    """At most ``BARS`` bars; the outermost cells, which have no end, are drawn as wide as the others together."""
    cells = reference.cells
    if not isinstance(cells, Edges) or not len(cells.edges):
        return Histogram(edges=[0, 1], counts=[counts.present])
    first, last = float(cells.edges[0]), float(cells.edges[-1])
    wide = last - first or abs(first) or 1.0
    edges = np.concatenate([[first - wide], cells.edges.astype(float), [last + wide]])
    cuts = np.unique(np.linspace(0, cells.size, min(BARS, cells.size) + 1).round().astype(int))
    return Histogram(edges=edges[cuts].tolist(), counts=np.add.reduceat(counts.cells, cuts[:-1]).tolist())


def _key(channel: int, measure: str) -> str:
    return f"{channel}/{measure}"
