"""The page on reliability says what was measured, and nothing else."""

from __future__ import annotations

import json

from benchmarks.reliability_document import (
    DOCUMENT,
    FAULTS,
    JOINER_DIES,
    NOT_MEASURED,
    UPDATER_DIES,
    document,
    load,
    merged,
)


def line(fault: str, events: int = 1_000, lost: int = 0, recovered_s: tuple[float, ...] = ()) -> str:
    row = {"fault": fault, "faults": 20, "events": events, "lost": lost, "doubled": 0, "recovered_s": recovered_s}
    return json.dumps(row)


def row_of(text: str, fault: str) -> str:
    [found] = [row for row in text.splitlines() if row.startswith(f"| {fault} |")]
    return found


def test_the_page_is_what_the_results_say() -> None:
    assert DOCUMENT.read_text() == document(load()), "python -m benchmarks.reliability_document"


def test_without_results_nothing_is_measured() -> None:
    text = document([])
    assert text.count(NOT_MEASURED) == len(FAULTS)
    assert "0 events and 0 faults" in text


def test_what_is_lost_and_what_is_late_stands_out() -> None:
    text = document(merged([], [line(UPDATER_DIES, lost=3, recovered_s=(1.0, 2.0, 16.5))]))
    found = row_of(text, UPDATER_DIES)
    assert "| 20 | 1,000 | **3** | 0 | 2.0 s, 16.5 s, **above 15 s** |" in found
    assert "1,000 events and 20 faults; 3 lost or doubled" in text
    assert "not reached yet: 1,000,000 events and 200 faults" in text


def test_a_run_of_a_part_leaves_the_other_rows() -> None:
    before = merged([], [line(UPDATER_DIES), line(JOINER_DIES)])
    after = merged(before, [line(JOINER_DIES, events=2_000_000)])
    assert [row.events for row in after] == [1_000, 2_000_000]
    assert "not reached yet: 200 faults" in document(after)
