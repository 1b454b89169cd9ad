"""The sheet of a version and its pictures, from values alone; tests/integration/test_training.py has real ones."""

from __future__ import annotations

import pytest

from millrace.cli._drawing import WIDTH, bar, columns, fitting_scale, interval
from millrace.cli._models_view import drawn_differences, drawn_weights
from millrace.errors import MillraceError
from millrace.registry.gates import GATES_TAG, Gate, gate_tags, gates_of
from millrace.registry.history import History
from millrace.registry.sheet import sheet
from millrace.v1.model_pb2 import ModelEvent, ModelEventType


def history(*events: tuple[str, str, str]) -> History:
    """From (version, what, the version before)."""
    made = History("ranker")
    for number, (version, what, before) in enumerate(events):
        kind = ModelEventType.Value(f"MODEL_EVENT_TYPE_{what}")
        event = ModelEvent(event_id=f"e{number}", model_name="ranker", model_version=version, type=kind)
        event.previous_version = before
        for _ in range(2):  # a reader that starts again
            made.apply(event)
    return made


LIFE = history(
    ("1", "REGISTERED", ""),
    ("1", "PROMOTED", ""),
    ("2", "REGISTERED", ""),
    ("3", "REJECTED", ""),
    ("2", "CHALLENGER", ""),
    ("1", "COMMAND_REFUSED", ""),
    ("2", "PROMOTED", "1"),
    ("4", "REGISTERED", ""),
    ("4", "CHALLENGER", ""),
    ("5", "REGISTERED", ""),
    ("5", "REJECTED", ""),
)


@pytest.mark.parametrize(
    ("version", "state", "what"),
    [
        ("1", "former champion", ["registered", "promoted"]),
        ("2", "champion", ["registered", "challenger", "promoted"]),
        ("3", "failed a gate", ["rejected"]),
        ("4", "challenger", ["registered", "challenger"]),
        ("5", "rejected", ["registered", "rejected"]),
    ],
)
def test_a_version_has_the_state_that_its_events_leave_it_in(version: str, state: str, what: list[str]) -> None:
    told = sheet(version, LIFE)
    assert (told["state"], [event["what"] for event in told["events"]]) == (state, what)
    assert (told["aliases"], told["gates"], told["run"], told["weights"]) == (None, None, None, None)


def test_lineage_is_who_came_before_and_after() -> None:
    assert sheet("2", LIFE)["lineage"]["replaced"] == ["1"]
    assert sheet("1", LIFE)["lineage"]["replaced_by"] == ["2"]
    with pytest.raises(MillraceError, match=r"no version '9' \(versions: 1, 2, 4, 5\)"):
        sheet("9", LIFE)


def test_gates_come_back_from_tags() -> None:
    gates = [
        Gate("better", True, "gains: a lot", {"gain": 0.25, "low": -1.5}),
        Gate("segments", False, "worse in new", {"new.gain": -2.0}),
        Gate("golden", True, "all as they should be"),
    ]
    assert gates_of({**gate_tags(gates), "millrace.reason": "x"}) == gates
    assert gates_of({GATES_TAG: "passed"}) == []


def test_pictures() -> None:
    assert bar(1.0, 2.0, 9) == "    │██  "
    assert bar(-2.0, 2.0, 9) == "████│    "
    assert bar(0.0, 0.0, 9) == "    │    "
    assert columns([0, 1, 50, 100]) == " ▁▄█"
    assert columns([0, 0]) == "  "
    line = interval(-0.5, 0.0, 2.0, 1.0)
    assert (len(line), line[WIDTH // 2], line[-1], line.index("├")) == (WIDTH, "●", "►", 10)
    assert (fitting_scale([-0.07]), fitting_scale([100.0]), fitting_scale([])) == (0.1, 5.0, 0.05)
    assert list(drawn_weights(dict.fromkeys("abcdefghijklmnop", 0.0)))[-1] == "  and 4 smaller ones, 4 of them 0"
    assert [line.split()[0] for line in drawn_differences({"a": 1.0, "b": 2.0}, {"b": 5.0, "c": 0.5})] == [
        "b",
        "a",
        "c",
    ]
