"""The data sets that are known by name: readable, and as many rows as their README says."""

from __future__ import annotations

import pytest

from millrace.events.datasets import DATASETS, dataset
from millrace.events.rules import check_item
from millrace.settings import RecommenderClientSettings
from millrace.v1.interaction_pb2 import Interaction

pytestmark = pytest.mark.system

ROWS = {
    "globo": 2_049_488,
    "ml-100k": 100_000,
    "ml-latest-small": 100_836,
    "serenade-toy": 113_601 + 1_451 + 1_233,
    "yoochoose-sample": 70_278 + 13_568,
    "diginetica": 993_483,
}
ITEMS = {"ml-100k": 1_682, "ml-latest-small": 9_742}
"""Entries of the catalogue, where there is one."""
EVENTS_CHECKED = 120_000
"""All of the small ones; the first day and a half of globo (building two million events takes a minute)."""


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_is_there_in_order_and_valid(name: str) -> None:
    source = dataset(name, RecommenderClientSettings().data)
    assert sum(1 for _ in source.read()) == source.rows == ROWS[name]

    last_ms, ids = 0, set()
    for count, (line, event) in enumerate(source.events(), start=1):
        assert isinstance(event, Interaction), f"line {line}: {event}"
        assert event.occurred_at_ms >= last_ms
        last_ms = event.occurred_at_ms
        ids.add(event.event_id)
        if count == EVENTS_CHECKED:
            break
    assert len(ids) == min(ROWS[name], EVENTS_CHECKED)

    items = [] if source.catalogue is None else list(source.catalogue())
    assert len({item.item_id for item in items}) == len(items) == ITEMS.get(name, 0)
    for item in items:
        check_item(item)
        assert item.title


def test_events_carry_what_the_file_holds() -> None:
    data = RecommenderClientSettings().data
    _, click = next(dataset("globo", data).events())
    assert isinstance(click, Interaction)
    assert (click.user_id, click.item_id, click.session_id) == ("59", "234853", "1506826329267796")
    assert (click.occurred_at_ms, click.context.device, click.context.country) == (1_506_826_800_026, "3", "1")
    assert dict(click.context.attributes) == {"environment": "4"}
    _, rating = next(dataset("ml-latest-small", data).events())
    assert isinstance(rating, Interaction)
    assert rating.HasField("value")
    assert 0.5 <= rating.value <= 5
