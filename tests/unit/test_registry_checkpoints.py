"""Checkpoints on disk, without a registry: what is whole, what is not, what stays."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.errors import InfrastructureError, InvalidField
from millrace.learning.state import STATE_FILE, LearnerState, fresh
from millrace.ranking.first import first_ranker
from millrace.registry.checkpoints import CheckpointCache
from millrace.registry.ledger import Ledger
from millrace.settings import MlflowSettings, Settings
from millrace.v1.model_pb2 import ModelEvent
from workers.online_learner.checkpoints import RETRY_S, Checkpointer

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


@contextmanager
def full_disk() -> Iterator[None]:
    """Files of this process get no larger than a kilobyte: the write that goes beyond fails half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_checkpoints_before_and_learning_goes_on(cache: CheckpointCache) -> None:
    file, digest = cache.put(state(5))
    checkpointer = Checkpointer(Settings(), cache)
    checkpointer.begin(0.0)
    newest, later_s = replace(state(6), examples=1_000), Settings().learner.checkpoint_interval_ms / 1_000
    with full_disk():
        with pytest.raises(OSError, match="File too large"):
            cache.put(newest)
        assert checkpointer.follow(later_s, newest, Ledger("ranker"), []) is None
    assert cache.ids() == ["1.2.5"]
    assert cache.local(event(state(5), digest)) is not None
    assert sorted(path.name for path in file.parent.parent.iterdir()) == ["1.2.5"], "nothing is left of what failed"
    # Once there is room the next try takes the newest state.
    checkpointer.follow(later_s + RETRY_S, replace(newest, sequence=7), Ledger("ranker"), [])
    assert cache.ids()[0] == "1.2.7"
    checkpointer.stop()


def test_the_last_ten_and_one_are_kept(cache: CheckpointCache) -> None:
    for sequence in range(1, 14):
        cache.put(state(sequence))
    assert len(cache.ids()) == 11
    assert "1.2.13" in cache.ids()


@pytest.mark.parametrize("name", ["", "../1.1.1", "1.1", "1.1.1/..", "a.b.c", "1.1.1\n"])
def test_only_ids_become_paths(cache: CheckpointCache, name: str) -> None:
    with pytest.raises(InvalidField, match="checkpoint_id"):
        cache.load(ModelEvent(checkpoint_id=name))
