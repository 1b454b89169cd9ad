"""A cluster as one store: who has which slot, and replies of several masters as those of one."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace import redis_address, redis_cluster, redis_link
from millrace.errors import InfrastructureError
from millrace.redis_address import Node
from millrace.redis_cluster import joined, key_of, parse_slots

ASKED = Node("asked", 7000)


def test_who_serves_what() -> None:
    topology = parse_slots(
        [
            [0, 99, [b"one", 7000, b"id"], [b"three", 7002, b"id"]],
            [100, 16_383, [b"", 7001, b"id"]],
        ],
        ASKED,
    )
    assert topology.masters == (Node("one", 7000), Node("asked", 7001)), "who told it does not say its own name"
    assert topology.replicas == (Node("three", 7002),)
    assert topology.owners == (0,) * 100 + (1,) * 16_284


def test_slots_that_nobody_serves_are_a_failure() -> None:
    with pytest.raises(InfrastructureError, match="serves 1 of its slots"):
        parse_slots([[0, 16_382, [b"one", 7000, b"id"]]], ASKED)


@given(st.data())
def test_replies_of_masters_are_those_of_one(data: st.DataObject) -> None:
    """However keys lie: a call's answers are in the order of its keys, calls in their own order."""
    calls = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=8))
    order = [place for call in calls for place in call]
    replies: dict[int, list[list[int] | None]] = {place: [] for place in set(order)}
    for answer, place in enumerate(order):
        replies[place].append([answer])
    numbers = iter(range(len(order)))
    assert joined(order, [len(call) for call in calls], replies) == [[next(numbers) for _ in call] for call in calls]
    assert joined(order, [], replies) == [[answer] for answer in range(len(order))]


def test_a_command_without_a_key_has_no_master() -> None:
    assert key_of(("HGET", "u:ü", "f")) == "u:ü".encode()
    with pytest.raises(ValueError, match="'PING' is about no key"):
        key_of(("PING",))


def test_examples_are_right() -> None:
    for module in (redis_address, redis_cluster, redis_link):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed
