"""Contract messages from Python values: a wrong value is named by its field."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from millrace.errors import InvalidField
from millrace.events import build
from millrace.events.rules import check_interaction, check_item, check_recommend_request
from millrace.v1.interaction_pb2 import InteractionType
from millrace.v1.recommendation_service_pb2 import RepeatPolicy


def test_what_is_left_out_is_made() -> None:
    before = build.now_ms()
    event = build.interaction("ann", "shoe")
    check_interaction(event)
    assert event.type == InteractionType.INTERACTION_TYPE_CLICK
    assert before <= event.occurred_at_ms <= build.now_ms()
    assert not event.HasField("value")
    assert not event.HasField("context")


def test_event_ids_are_unique_and_sort_by_time() -> None:
    ids = [build.new_event_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [event_id[:12] for event_id in ids] == sorted(event_id[:12] for event_id in ids)
    assert {len(event_id) for event_id in ids} == {32}


def test_everything_of_an_interaction() -> None:
    event = build.interaction(
        "ann",
        "shoe",
        "INTERACTION_TYPE_PURCHASE",
        occurred_at=datetime(2020, 1, 1, tzinfo=UTC),
        event_id="e",
        value=5,
        session_id="s",
        request_id="r",
        context={"device": "mobile", "plan": "gold"},
    )
    assert event.type == InteractionType.INTERACTION_TYPE_PURCHASE
    assert event.occurred_at_ms == 1_577_836_800_000
    assert (event.event_id, event.value, event.session_id, event.request_id) == ("e", 5.0, "s", "r")
    assert event.context.device == "mobile"
    assert dict(event.context.attributes) == {"plan": "gold"}


def test_everything_of_an_item() -> None:
    item = build.item("i", title="t", tags=["a", "b"], price=1, available=False, published_at=1, attributes={"k": "v"})
    assert list(item.tags) == ["a", "b"]
    assert item.HasField("available")
    assert not item.available
    assert (item.price, item.published_at_ms, dict(item.attributes)) == (1.0, 1, {"k": "v"})
    check_item(build.item("i"))


def test_everything_of_a_request() -> None:
    asked = build.request("u", 5, exclude=["a"], restrict_to=["b"], as_of=7, repeats="exclude", explain=True)
    assert (asked.k, asked.as_of_ms, asked.explain) == (5, 7, True)
    assert (list(asked.exclude_item_ids), list(asked.restrict_to_item_ids)) == (["a"], ["b"])
    assert asked.repeat_policy == RepeatPolicy.REPEAT_POLICY_EXCLUDE
    assert not build.request("u").HasField("as_of_ms")
    check_recommend_request(build.request("u"))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: build.interaction(42, "i"), "user_id"),  # type: ignore[arg-type]
        (lambda: build.interaction("\ud800", "i"), "user_id"),
        (lambda: build.interaction("u", "i", "clock"), "type"),
        (lambda: build.interaction("u", "i", value="5"), "value"),  # type: ignore[arg-type]
        (lambda: build.interaction("u", "i", occurred_at=datetime(2020, 1, 1)), "occurred_at_ms"),
        (lambda: build.interaction("u", "i", occurred_at=1.5), "occurred_at_ms"),  # type: ignore[arg-type]
        (lambda: build.interaction("u", "i", occurred_at=2**64), "occurred_at_ms"),
        (lambda: build.interaction("u", "i", context={"device": 3}), "context.device"),  # type: ignore[dict-item]
        (lambda: build.interaction("u", "i", context={"x": 3}), "context.attributes['x']"),  # type: ignore[dict-item]
        (lambda: build.item("i", tags="abc"), "tags"),
        (lambda: build.item("i", tags=["a", 3]), "tags[1]"),  # type: ignore[list-item]
        (lambda: build.item("i", available="no"), "available"),  # type: ignore[arg-type]
        (lambda: build.item("i", attributes={"k": 1}), "attributes['k']"),  # type: ignore[dict-item]
        (lambda: build.request("u", "5"), "k"),  # type: ignore[arg-type]
        (lambda: build.request("u", viewport=-1), "viewport"),
        (lambda: build.request("u", exclude="abc"), "exclude_item_ids"),
        (lambda: build.request("u", repeats="never"), "repeat_policy"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_is_named_by_its_field(make: Any, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        make()
    assert caught.value.field == field
