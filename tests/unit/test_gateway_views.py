"""The gateway's views: what records say of models, learning, experiments and refused commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from google.protobuf.message import Message

from millrace.stream.worker import Record
from millrace.v1.command_pb2 import Command
from millrace.v1.detector_pb2 import DetectorState, WatchedRest
from millrace.v1.experiment_pb2 import Experiment, ExperimentDefinition
from millrace.v1.model_pb2 import ModelEvent, ModelEventType, ModelUpdate, ParameterUpdate
from services.gateway.views import Learning, Views
from tests.gateway_support import parts_nowhere


@pytest_asyncio.fixture
async def views() -> AsyncIterator[Views]:
    async with parts_nowhere() as parts:
        yield parts.views


def record(message: Message, headers: tuple[tuple[str, bytes], ...] = (), key: bytes = b"key") -> Record:
    return Record("topic", 0, 0, key, message, 0, headers, None)


def update(sequence: int, at_ms: int, *command_ids: str) -> ParameterUpdate:
    return ParameterUpdate(model_name="ranker", sequence=sequence, created_at_ms=at_ms, command_ids=command_ids)


async def test_each_record_changes_its_view(views: Views) -> None:
    registered = ModelEvent(
        event_id="e", model_name="ranker", model_version="1", type=ModelEventType.Value("MODEL_EVENT_TYPE_REGISTERED")
    )
    experiment = Experiment(definition=ExperimentDefinition(experiment_id="one"))
    views.apply(
        [
            record(registered),
            record(experiment),
            record(ModelUpdate(update=update(7, 1_000, "c-1"))),
            record(DetectorState(rest=WatchedRest(model_version="7")), key=b"ranker/rest"),
            record(Command(command_id="c-2"), (("dlq.reason", b"not so"),)),
            record(Command(command_id="c-3")),
        ]
    )
    assert list(views.ledgers["ranker"].versions) == ["1"]
    assert views.experiments == {"one": experiment}
    assert views.learning["ranker"].last.sequence == 7
    assert views.learning["ranker"].answers["c-1"].sequence == 7
    assert views.drift["ranker"].as_dict()["version"] == "7"
    assert views.refusals == {"c-2": "not so", "c-3": "no reason given"}


async def test_refusals_that_are_remembered_have_a_bound(views: Views) -> None:
    views.apply([record(Command(command_id=f"c-{number}")) for number in range(1_500)])
    assert len(views.refusals) == 1_000
    assert "c-1499" in views.refusals
    assert "c-499" not in views.refusals


async def test_who_waits_is_told_of_a_change(views: Views) -> None:
    waiting = asyncio.create_task(views.until(lambda: views.experiments.get("one"), 60))
    await asyncio.sleep(0)
    views.apply([record(Experiment(definition=ExperimentDefinition(experiment_id="other")))])
    await asyncio.sleep(0)
    assert not waiting.done()
    views.apply([record(Experiment(definition=ExperimentDefinition(experiment_id="one")))])
    found = await waiting
    assert found is not None
    assert found.definition.experiment_id == "one"
    assert await views.until(lambda: views.experiments.get("nobody's"), 0.01) is None


def test_updates_are_counted_over_ten_seconds() -> None:
    learning = Learning(update(0, 0))
    for number in range(100):
        learning.take(update(number, 200 * number))
    # The last was made at 19,800 ms.
    assert learning.updates_per_s(19_800) == 5.0
    assert learning.updates_per_s(24_800) == 2.5
    assert learning.updates_per_s(40_000) == 0.0
    assert len(learning.made_ms) == 50
