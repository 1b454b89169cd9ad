"""Protocols ask as often as the published figures were evaluated, on the data that they were evaluated on."""

from __future__ import annotations

from bisect import bisect_right

import pytest

from millrace.evaluation.protocols import kept, protocol
from millrace.evaluation.sessions import Sessions
from millrace.evaluation.stream import EventStream, read_files, read_sessions, read_source, select
from millrace.events.columns import Columns
from millrace.events.datasets import dataset
from millrace.settings import MINUTE_MS, RecommenderClientSettings

pytestmark = pytest.mark.system

DATA = RecommenderClientSettings().data


def counted(name: str, stream: EventStream) -> list[int]:
    """Periods of the events whose answers count."""
    rules, sessions = protocol(name, stream), Sessions(30 * MINUTE_MS)
    found = []
    for place, event in enumerate(stream.events):
        period = bisect_right(stream.starts, place) - 1
        asked = rules.asks(place, event, period, sessions.continues(event))
        if asked is not None and asked.counted:
            found.append(period)
    return found


def test_serenade_toy() -> None:
    columns = Columns("SessionId", "ItemId", "Time", session="SessionId")
    folder = DATA / "serenade-toy"
    stream = read_files([folder / "train.txt", folder / "test.txt"], "tsv", columns)
    assert len(counted("serenade", stream)) == 931


def test_ml_100k() -> None:
    stream = select(read_source(dataset("ml-100k", DATA)), lambda event: kept("flurs", event))
    assert len(stream.events) == 21_201
    assert len(counted("flurs", stream)) == 14_841


def test_diginetica() -> None:
    """Sixteen weeks are tested; the first is trained on."""
    stream = read_sessions(DATA / "diginetica")
    assert len(stream.events) == 993_483
    assert sorted(set(counted("ader", stream))) == list(range(1, 17))
