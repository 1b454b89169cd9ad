"""The truth about arms of experiments: summed over pages and processes, and held against the arm's control."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from millrace.events.build import now_ms
from millrace.simulation.clicks import Looked, expected
from millrace.simulation.truth import Truth, Truths, read_truths, true_effects


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    return tmp_path / "simulation"


def test_what_was_shown_is_summed_over_pages_and_processes(folder: Path) -> None:
    page = Looked(2, 1, 0, np.array([0.3, 0.1]))
    average = expected(page.chances)
    truths = Truths()
    truths.save()
    assert not folder.exists(), "nothing is known, nothing is kept"
    truths.add("e", "a", page)
    truths.save()
    truths.add("e", "a", page)
    truths.add("e", "b", page)
    truths.add("other", "a", page)
    truths.save()
    # A process that was started again.
    (kept,) = folder.glob("*.json")
    (folder / "1-1.json").write_text(kept.read_text())
    found = read_truths("e", 0)
    assert found.keys() == {"a", "b"}
    assert found["a"].pages == 4
    assert found["a"].slots == pytest.approx(4 * average.examined)
    assert found["a"].clicks == pytest.approx(4 * average.clicks)
    assert found["b"].rate == pytest.approx(average.clicks / average.examined)


def test_files_from_before_the_experiment_are_about_another_one(folder: Path) -> None:
    truths = Truths()
    truths.add("e", "a", Looked(1, 1, None, np.array([0.3])))
    truths.save()
    (kept,) = folder.glob("*.json")
    until_ms = json.loads(kept.read_text())["until_ms"]
    assert until_ms <= now_ms()
    assert read_truths("e", until_ms).keys() == {"a"}
    assert read_truths("e", until_ms + 1) == {}


def test_effects_are_relative_to_the_control() -> None:
    truths = {"a": Truth(1, 10.0, 1.0), "b": Truth(1, 10.0, 1.5), "c": Truth()}
    assert true_effects(truths, "a") == {"b": pytest.approx(0.5)}
    assert true_effects(truths, "c") == {}
    assert true_effects({}, "a") == {}
