"""Checkpoints on disk, without a registry: what is whole, what is not, what stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from millrace.errors import InfrastructureError, InvalidField
from millrace.learning.state import STATE_FILE, LearnerState, fresh
from millrace.ranking.first import first_ranker
from millrace.registry.checkpoints import CheckpointCache
from millrace.settings import MlflowSettings
from millrace.v1.model_pb2 import ModelEvent

AWAY = MlflowSettings(tracking_uri="http://127.0.0.1:1", timeout_ms=1_000)


def state(sequence: int) -> LearnerState:
    return replace(fresh(first_ranker(), "1", "reign", 2), sequence=sequence, learned={0: 7, 2: sequence})


def event(of: LearnerState, sha256: bytes) -> ModelEvent:
    return ModelEvent(checkpoint_id=of.checkpoint_id, run_id="a run", sha256=sha256)


@pytest.fixture
def cache(tmp_path: Path) -> CheckpointCache:
    return CheckpointCache("ranker", AWAY, tmp_path / "checkpoints")


def test_what_was_put_is_there_to_the_bit(cache: CheckpointCache) -> None:
    file, digest = cache.put(state(5))
    assert file.name == STATE_FILE
    again = cache.local(event(state(5), digest))
    assert again is not None
    assert again.to_bytes() == state(5).to_bytes()
    assert cache.load(event(state(5), digest)).learned == {0: 7, 2: 5}
    assert cache.ids() == ["1.2.5"]


def test_a_file_cut_in_half_is_dropped_and_asked_for_anew(cache: CheckpointCache) -> None:
    file, digest = cache.put(state(5))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert cache.local(event(state(5), digest)) is None
    assert cache.ids() == []
    with pytest.raises(InfrastructureError, match=r"fetching checkpoint 1\.2\.5 of ranker failed: .* http://127"):
        cache.load(event(state(5), digest))
    assert list(file.parent.parent.iterdir()) == []


def test_the_last_ten_and_one_are_kept(cache: CheckpointCache) -> None:
    for sequence in range(1, 14):
        cache.put(state(sequence))
    assert len(cache.ids()) == 11
    assert "1.2.13" in cache.ids()


@pytest.mark.parametrize("name", ["", "../1.1.1", "1.1", "1.1.1/..", "a.b.c", "1.1.1\n"])
def test_only_ids_become_paths(cache: CheckpointCache, name: str) -> None:
    with pytest.raises(InvalidField, match="checkpoint_id"):
        cache.load(ModelEvent(checkpoint_id=name))
