"""Rows of benchmarks: always the same form, printed and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.recommend import _percentile

FIELDS = ["name", "value", "unit", "limit", "ratio", "p50", "p90", "p99", "samples"]
FIELDS += ["low", "high", "seed", "machine", "versions"]


def test_a_row_has_every_field_and_null_for_what_is_absent() -> None:
    (row,) = json.loads(report.as_json([report.rate_row("x.per_s", 50.0, "1/s", 200.0)]))["rows"]
    assert list(row) == FIELDS
    assert (row["value"], row["limit"], row["ratio"]) == (50.0, 200.0, 0.25)
    assert row["p50"] is row["p90"] is row["p99"] is row["samples"] is None
    assert row["versions"]["numpy"] == np.__version__
    assert "Python" in row["machine"]


def test_latencies_are_percentiles_of_all_samples() -> None:
    row = report.latency_row("x_ms", list(range(1, 101)), limit_ms=5.05)
    assert (row.value, row.p50, row.samples) == (50.5, 50.5, 100)
    assert row.p90 == pytest.approx(90.1)
    assert row.p99 == pytest.approx(99.01)
    assert row.ratio == pytest.approx(10.0)
    with pytest.raises(ValueError, match="no samples"):
        report.latency_row("x_ms", [])


def test_results_are_added_and_the_latest_of_a_name_kept(tmp_path: Path) -> None:
    file = tmp_path / "results" / "latest.json"
    report.append([report.rate_row("a", 1.0, "1/s", None), report.rate_row("b", 2.0, "1/s", None)], file)
    report.append([report.rate_row("a", 3.0, "1/s", None)], file)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["name"], row["value"]) for row in rows] == [("b", 2.0), ("a", 3.0)]


def test_percentiles_from_a_histogram_are_linear_inside_a_bucket() -> None:
    bounds, cumulative = np.array([1.0, 2.0, 4.0]), np.array([10.0, 60.0, 100.0])
    assert _percentile(bounds, cumulative, 10) == pytest.approx(1.0)
    assert _percentile(bounds, cumulative, 35) == pytest.approx(1.5)
    assert _percentile(bounds, cumulative, 80) == pytest.approx(3.0)
