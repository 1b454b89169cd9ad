"""What the drift detector wrote, as a status: who holds, what is shown, and that it is always JSON."""

from __future__ import annotations

import json
import math

import pytest

from millrace.cli._drift_view import gauge, print_status
from millrace.drift.status import SIGNALS_KEPT, DriftStatus, model_of
from millrace.v1.detector_pb2 import DetectorState, WatchedLook, WatchedMeasure, WatchedRest
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from millrace.v1.model_pb2 import ModelEvent


def signal(name: str, reign: str, channel: DriftChannel.ValueType = DriftChannel.DRIFT_CHANNEL_INPUT) -> DriftSignal:
    evidence = [DriftEvidence(name=name, effect_size=0.2, effect_min=0.05, alarm=True)]
    return DriftSignal(signal_id=f"{reign}/{name}", model_name="ranker", channel=channel, holds=True, evidence=evidence)


def rest(reign: str, *holding: DriftSignal) -> DetectorState:
    found = WatchedRest(reign_id=reign, model_version="2", holding=holding, false_alarms_per_day=1 / 16_000, hours=7)
    found.measures.append(WatchedMeasure(name="click_through", outcomes=500, before=0.1, after=0.08, evidence=0.4))
    return DetectorState(rest=found)


def test_what_holds_is_what_the_detector_holds() -> None:
    status = DriftStatus("ranker")
    before, now = signal("covisit", "r1"), signal("idle", "r2")
    for message in (before, rest("r1", before), now, rest("r2", now)):
        status.take(message)
    told = status.as_dict()
    assert [(one["signal_id"], one["holds"]) for one in told["signals"]] == [("r2/idle", True), ("r1/covisit", False)]


def test_a_look_of_an_earlier_reign_is_not_shown() -> None:
    status = DriftStatus("ranker")
    status.take(DetectorState(look=WatchedLook(reign_id="r1", findings=[DriftEvidence(name="covisit")])))
    status.take(rest("r2"))
    assert status.as_dict()["look"] is None
    status.take(rest("r1"))
    assert [one["name"] for one in status.as_dict()["look"]["findings"]] == ["covisit"]


def test_it_has_a_bound_and_is_json_whatever_the_numbers() -> None:
    status = DriftStatus("ranker")
    for number in range(3 * SIGNALS_KEPT):
        status.take(signal(str(number), "r"))
    status.take(signal("overflow", "r"))
    status.signals["r/overflow"].evidence[0].statistic = math.inf
    told = json.loads(json.dumps(status.as_dict(), allow_nan=False))
    assert len(told["signals"]) == SIGNALS_KEPT
    assert told["signals"][0]["evidence"][0]["statistic"] is None


def test_records_say_whom_they_are_about() -> None:
    assert model_of(signal("a", "r"), b"x") == "ranker"
    assert model_of(rest("r"), b"a/b/rest") == "a/b"
    assert model_of(ModelEvent(), b"x") is None


def test_words_where_there_is_nothing_yet(capsys: pytest.CaptureFixture[str]) -> None:
    status = DriftStatus("ranker")
    print_status(status.as_dict(), everything=False)
    assert "is it running?" in capsys.readouterr().out
    status.take(rest("r"))
    print_status(status.as_dict(), everything=False)
    said = capsys.readouterr().out
    assert (
        "version 2 of model 'ranker' is watched, no outcome yet; false alarms of a feature: one in 16,000 days" in said
    )
    assert "nothing drifts" in said
    assert "no look yet; one takes 24 whole hours since the version serves, and 7 were seen" in said
    assert "click_through\tall\t500\t0.1\t0.08\t████······│··········\t0.4" in said


def test_gauges() -> None:
    assert gauge(0.05, 0.05) == "██████████│··········"
    assert gauge(-9.0, 0.05) == "██████████│██████████"
    assert gauge(None, 0.05) == gauge(0.1, 0.0) == ""
