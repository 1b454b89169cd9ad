"""The console's own figures and words: pure parts of it, without a gateway."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from prometheus_client.samples import Sample

from millrace.errors import InvalidField
from millrace.experiments.outlook import relative_intervals
from millrace.ranking.features import FEATURE_NAMES
from millrace.ranking.first import first_ranker
from millrace.stream.worker import Record
from millrace.topics import INTERACTIONS
from millrace.v1.common_pb2 import Position
from millrace.v1.drift_pb2 import DriftEvidence, DriftSignal, Histogram
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import Outcome
from services.gateway.console.asked import Asked
from services.gateway.console.asking import Said
from services.gateway.console.change import before_and_after, moved
from services.gateway.console.charts import HEIGHT, Point, band, bars
from services.gateway.console.figures import Figures, lags
from services.gateway.console.freshness import Freshness
from services.gateway.console.history import POINTS, thinned
from services.gateway.console.messages import Wanted, gist, written
from services.gateway.console.pulse import parts_of
from services.gateway.console.rendering import clock, percent, plain, signed_percent, span, when
from services.gateway.console.routes.dead_letters import marks_of, row_of
from services.gateway.console.routes.drift import put_together
from services.gateway.console.routes.models import gates_of
from services.gateway.console.watched import Watched
from services.gateway.console.weights import explain
from services.gateway.console.words import LABELS, PARTS, label_of

CLICK = Interaction(user_id="ann", item_id="hat", type=InteractionType.INTERACTION_TYPE_CLICK)


def said(process: str, *samples: tuple[str, dict[str, str], float], place: str = "here", ready: bool = True) -> Said:
    return Said(process, place, True, ready, (), [Sample(name, labels, value) for name, labels, value in samples])


def record(message: object, offset: int, at_ms: int = 1_000, partition: int = 0) -> Record:
    return Record(INTERACTIONS.name, partition, offset, b"ann", message, at_ms, (), b"")  # type: ignore[arg-type]


def answer(at_ms: int, known: int | None, *slots: Slot) -> Impression:
    found = Impression(user_id="ann", served_at_ms=at_ms, slots=slots)
    if known is not None:
        found.known.CopyFrom(Position(partition=0, offset=known))
    return found


def test_every_feature_of_the_model_and_every_part_has_words() -> None:
    assert set(FEATURE_NAMES) <= LABELS.keys()
    assert all(part.does and part.without for part in PARTS.values())
    assert label_of("age>3*seen") == "how long it exists beyond 3 × the user knows it"
    assert label_of("not_known_yet") == "not known yet"


def test_rates_are_of_several_processes_and_survive_a_new_start() -> None:
    figures = Figures()
    counter = "millrace_stream_records_total"

    def rate(at_s: float, *counts: tuple[str, float]) -> float | None:
        there = [said("feature_updater", (counter, {"topic": "interactions"}, n), place=place) for place, n in counts]
        return figures.rates(there, at_s)["events"]

    assert rate(0, ("a", 100), ("b", 50)) is None
    assert rate(1, ("a", 110), ("b", 55)) == 15
    # One began anew and counts from nothing.
    assert rate(2, ("a", 5), ("b", 60)) == pytest.approx((15 + 10) / 2)
    assert rate(3) is None


def test_delays_are_those_of_the_last_readings() -> None:
    figures = Figures()

    def reading(fast: int, slow: int) -> Said:
        buckets = {"0.01": fast, "0.1": fast + slow, "+Inf": fast + slow}
        name = "millrace_stream_delay_seconds_bucket"
        return said("feature_updater", *((name, {"le": le}, float(n)) for le, n in buckets.items()))

    assert figures.delays([reading(10_000, 0)])["features"] is None
    found = figures.delays([reading(10_100, 1)])["features"]
    assert found is not None
    assert found[0] == pytest.approx(5, abs=0.1)
    assert found[1] < 10.1
    assert figures.delays([])["features"] is None


def test_the_learner_says_how_wrong_it_was() -> None:
    figures = Figures()

    def reading(slots: float, nats: float) -> Said:
        return said(
            "online_learner",
            ("millrace_learner_slots_total", {}, slots),
            ("millrace_learner_log_loss_nats_total", {}, nats),
            ("millrace_learner_buffer_slots", {}, 25),
            ("millrace_learner_buffer_slots_max", {}, 100),
        )

    assert figures.learning([reading(10, 5)]) == {"loss": None, "buffer": 25}
    assert figures.learning([reading(30, 9)]) == {"loss": pytest.approx(0.2), "buffer": 25}
    assert figures.learning([]) == {"loss": pytest.approx(0.2), "buffer": None}


def test_lag_is_told_by_worker_topic_and_partition() -> None:
    name = "millrace_stream_lag_records"
    found = lags(
        [
            said("outcome_joiner", (name, {"topic": "impressions", "partition": "1"}, 7)),
            said("recommender", ("millrace_recommender_mirror_lag_records", {}, 3)),
        ]
    )
    assert [(one.process, one.topic, one.partition, one.records) for one in found] == [
        ("outcome_joiner", "impressions", 1, 7),
        ("recommender", "item-state", -1, 3),
    ]


def test_a_part_is_well_when_all_its_processes_are() -> None:
    there = [
        said("recommender", place="a"),
        Said("recommender", "b", True, False, ["no model"]),
        Said("gateway", "c", False, False),
        said("something else"),
    ]
    parts = {part["name"]: part for part in parts_of(there)}
    assert parts["recommender"]["state"] == "waiting"
    assert parts["recommender"]["waits_for"] == ["no model"]
    assert parts["gateway"]["state"] == "silent"
    assert parts["outcome_joiner"]["state"] == "absent"
    assert parts["something else"]["state"] == "ready"
    assert "simulate" not in parts


def test_an_answer_is_asked_whether_it_knew_the_clicks_before_it() -> None:
    freshness = Freshness()
    freshness.take([record(answer(900, None), 0), record(CLICK, 5, 1_000), record(CLICK, 6, 2_000)])
    assert freshness.answers == 0, "what came before anybody looked is not known"
    freshness.take([record(answer(1_500, 5), 1), record(answer(3_000, 6), 2)])
    assert (freshness.answers, freshness.missed) == (2, 0)
    freshness.take([record(answer(3_000, 5), 3), record(answer(4_000, None), 4)])
    assert (freshness.answers, freshness.missed, freshness.stalest_ms) == (4, 2, 3_000)


def test_outcomes_are_as_fresh_as_the_update_that_learned_them() -> None:
    freshness = Freshness()
    assert freshness.outcome_to_model_ms(0) is None
    freshness.take([record(Outcome(), offset, 1_000 + 100 * offset) for offset in range(4)])
    update = ParameterUpdate(created_at_ms=1_300, learned=[Position(partition=0, offset=1)])
    freshness.take([record(ModelUpdate(update=update), 0)])
    assert freshness.outcome_to_model_ms(0) == pytest.approx((250, 299))
    assert freshness.outcome_to_model_ms(1_301) is None


def test_the_answers_before_and_after_a_click() -> None:
    first = answer(1, None, Slot(item_id="a", rank=0, features=[1, 2]), Slot(item_id="b", rank=1, features=[0, 0]))
    second = answer(2, 7, Slot(item_id="b", rank=0, features=[0, 4]), Slot(item_id="c", rank=1, features=[0, 0]))
    assert before_and_after([first, second], 0, 7) == (first, second)
    assert before_and_after([first, second], 0, 8) == (second, None)
    assert before_and_after([second], 0, 3) == (None, second)
    changes = moved(first, second, ["age", "seen"])
    assert [(one.item_id, one.before, one.after) for one in changes] == [("b", 2, 1), ("c", None, 2), ("a", 1, None)]
    assert changes[0].features == [("the user knows it", 0, 4)]
    assert moved(first, second, ())[0].features == []


@pytest.mark.parametrize("seed", range(5))
def test_reasons_add_up_to_the_score(seed: int) -> None:
    model = first_ranker()
    features = np.random.default_rng(seed).normal(0, 1, len(FEATURE_NAMES)).astype(np.float32)
    score = float(model.score(features[None])[0])
    found = explain(model, features.tolist(), score)
    log_odds = found.base + found.rest + sum(part.value for part in found.parts)
    assert 1 / (1 + math.exp(-log_odds)) == pytest.approx(score, rel=1e-5)
    assert found.agrees
    assert [abs(part.value) for part in found.parts] == sorted((abs(part.value) for part in found.parts), reverse=True)
    assert not explain(model, features.tolist(), 0.9 * score).agrees


def test_messages_are_found_by_user_item_and_type() -> None:
    found = gist(CLICK)
    assert (found.user, found.items, found.kind) == ("ann", ("hat",), "click")
    assert Wanted("ann", "hat", "click").takes(found)
    assert not Wanted(user="an").takes(found)
    assert not Wanted(item="ha").takes(found)
    assert not Wanted(kind="view").takes(found)
    assert gist(None).kind == "deleted"
    custom = Interaction(type=InteractionType.INTERACTION_TYPE_CUSTOM, custom_type="shared")
    assert gist(custom).kind == "shared"
    assert gist(Interaction(type=99)).kind == "99"  # type: ignore[arg-type]


def test_a_message_is_written_with_its_numbers_in_a_line() -> None:
    text = written(Impression(user_id='<b>"', slots=[Slot(item_id="a", features=[1, 2])]))
    assert '"user_id": "<b>\\""' in text
    assert '"features": [1.0, 2.0]' in text
    assert written(Impression(user_id="x" * 50_000)).endswith("cut here")


def test_places_are_asked_for_by_offset_time_or_not_at_all() -> None:
    assert Asked().place() is None
    assert Asked(partition="2", offset="17").place().offsets == {2: 17}  # type: ignore[union-attr]
    assert Asked(goes_on="0:4,2:9", at="1 h ago").place().offsets == {0: 4, 2: 9}  # type: ignore[union-attr]
    assert Asked(at="2026-01-02 03:04").place().time_ms == 1_767_323_040_000  # type: ignore[union-attr]
    for wrong in (
        Asked(offset="17"),
        Asked(partition="x", offset="1"),
        Asked(at="soon"),
        Asked(goes_on="1"),
        Asked(offset="9" * 30, partition="1"),
    ):
        with pytest.raises(InvalidField):
            wrong.place()


def test_an_interval_is_drawn_as_the_newest_half_of_it_needs() -> None:
    assert band([]) is None
    assert band([Point(1, 0.1, 0, 0.2)]) is None
    wide = [Point(at, 0.5, -100, 100) for at in range(10)]
    narrow = [Point(at, 0.05, 0.01, 0.1) for at in range(10, 20)]
    found = band([*wide, *narrow])
    assert found is not None
    assert 0.1 < found.high < 0.2
    assert found.low < 0 < found.high
    assert 0 < found.zero <= HEIGHT
    assert bars([]) == []
    assert [bar[3] for bar in bars([1, 2, 0])] == [17, 34, 0]


def test_history_keeps_the_newest() -> None:
    records = [Experiment(started_at_ms=at) for at in range(1_000)]
    kept = thinned(records)
    assert len(kept) <= POINTS
    assert kept[-1].started_at_ms == 999
    assert thinned([]) == []
    assert relative_intervals(Experiment()) == {}


def test_repetitions_of_a_signal_are_one_signal() -> None:
    def signal(name: str, at_ms: int, statistic: float, holds: bool = True) -> DriftSignal:
        shape = Histogram(edges=[0, 1, 2], counts=[3, 1])
        evidence = DriftEvidence(name="age", statistic=statistic, threshold=2, before=shape, after=shape)
        return DriftSignal(signal_id=name, at_ms=at_ms, holds=holds, evidence=[evidence] if holds else [])

    found = put_together(
        [signal("a", 1, 2.5), signal("a", 2, 3.0), signal("a", 3, 0, holds=False), signal("b", 1, 9.0)]
    )
    assert [(one["id"], one["holds"], one["times"]) for one in found] == [("b", True, 1), ("a", False, 3)]
    [evidence] = found[1]["evidence"]
    assert (evidence["statistic"], evidence["name"]) == (3.0, "how long it exists")
    assert evidence["line"] is not None


def test_a_letter_says_what_became_of_it() -> None:
    def letter(offset: int, *more: tuple[str, bytes], of: bytes = b"7") -> Record:
        facts = (("dlq.worker", b"feature_updater"), ("dlq.partition", b"1"), ("dlq.timestamp", b"1000"))
        headers = (*facts, ("dlq.offset", of), ("dlq.reason", b"type: missing"), *more)
        return Record("interactions.dlq", 0, offset, b"ann", None, 1_000, headers, b"")

    first, second, mark = letter(0), letter(1, of=b"8"), letter(2, ("dlq.mark", b"replayed"))
    marks = marks_of([first, second, mark])
    rows = [row_of(INTERACTIONS, one, marks) for one in (first, second)]
    assert [row["state"] for row in rows] == ["replayed", "open"]
    assert (rows[1]["name"], rows[1]["reason"], rows[1]["place"]) == ("interactions@1", "type: missing", "1 @ 8")


def test_gates_come_with_their_numbers() -> None:
    assert gates_of({"better.gain": 0.1, "better.low": 0.0, "alone": 1}) == {"better": {"gain": 0.1, "low": 0.0}}


async def test_what_nobody_looks_at_ends() -> None:
    done: list[str] = []
    ended = asyncio.Event()

    async def start() -> None:
        done.append("start")

    async def stop() -> None:
        done.append("stop")
        ended.set()

    watched = Watched(start, stop, linger_s=0.01)
    async with watched.looking(), watched.looking():
        assert done == ["start"]
    async with watched.looking():
        assert done == ["start"], "who comes back in time finds it running"
    await ended.wait()
    await watched.close()
    assert done == ["start", "stop"]


def test_numbers_for_people() -> None:
    assert [plain(one) for one in (None, 0, 0.0123, 3.14159, 1234.5)] == ["–", "0", "0.0123", "3.14", "1,234"]
    assert [span(ms) for ms in (12, 1_500, 90_000, 7_200_000, 172_800_000)] == [
        "12 ms",
        "1.5 s",
        "1.5 min",
        "2 h",
        "2 d",
    ]
    assert (percent(0.0512), percent(None), signed_percent(-0.051)) == ("5.12 %", "–", "−5.1 %")
    assert (when(0), clock(1_234)) == ("1970-01-01 00:00:00", "00:00:01.234")
