"""When ``millrace run`` ends by itself, and with which status."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.embedded import pipeline, watch
from deploy.embedded.pipeline import Pipeline
from deploy.embedded.snapshot import ProcessView, Snapshot
from deploy.embedded.stack import Addresses, Stack
from deploy.embedded.supervision import Supervisor
from millrace.cli import run
from millrace.settings import KafkaSettings, StackSettings


class Looks:
    """A watch that sees the same process at each look."""

    def __init__(self, state: Any) -> None:
        self._view = ProcessView("feature_updater", state, 1)
        self.taken = 0

    def snapshot(self) -> Snapshot:
        self.taken += 1
        return Snapshot(float(self.taken), 0, 0.0, None, [self._view])

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A pipeline that starts nothing, and looks a millisecond apart; signals are handled as before afterwards."""

    @contextmanager
    def nothing(*_: object) -> Iterator[Pipeline]:
        stack = Stack(tmp_path, StackSettings())
        yield Pipeline(Addresses(), KafkaSettings(), "", "", Supervisor(tmp_path), stack)

    monkeypatch.setattr(pipeline, "pipeline", nothing)
    monkeypatch.setattr(run, "INTERVAL_S", 0.001)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("state", "status"), [("ready", 0), ("starting", 1)])
def test_after_its_duration_the_status_says_whether_all_was_well(
    monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    looks = Looks(state)
    monkeypatch.setattr(watch, "Watch", lambda *_: looks)
    done = CliRunner().invoke(run.command, ["--rate", "0", "--duration", "1", "--json"])
    assert done.exit_code == status, done.output
    assert json.loads(done.stdout)["healthy"] is (status == 0)
    assert looks.taken > 1


def test_after_a_signal_it_looks_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Looks):
        def snapshot(self) -> Snapshot:
            if not self.taken:
                signal.raise_signal(signal.SIGINT)
            return super().snapshot()

    looks = Interrupted("starting")
    monkeypatch.setattr(watch, "Watch", lambda *_: looks)
    assert CliRunner().invoke(run.command, ["--rate", "0", "--json"]).exit_code == 0
    assert looks.taken == 2
