"""The rows of ``bench freshness-value``: which there are, and what a tiny month puts into them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from benchmarks import freshness_value
from benchmarks.freshness_value import DAYS, FIGURES, SEED, SIZE
from millrace.cli.main import cli
from millrace.evaluation.month import WAYS


def test_rows_of_a_tiny_month(tmp_path: Path) -> None:
    file, said = tmp_path / "days.json", list[str]()
    tiny = replace(SIZE, plan=replace(SIZE.plan, sessions_per_day=2.0), shoppers=10, items=20)
    rows = {row.name: row for row in freshness_value.run(said.append, tiny, by_day=file)}

    assert said[-1] == "popularity: day 37 of 37"
    days = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert len(days) == len(WAYS) * len(FIGURES) * DAYS
    assert {row["seed"] for row in days} == {SEED}
    live, nightly = (rows[f"freshness_value.click_through.{name}"] for name in ("live", "nightly"))
    versus = rows["freshness_value.click_through.live_vs_nightly"]
    assert abs(versus.value - (live.value / nightly.value - 1)) < 1e-12
    assert live.low is not None
    assert live.high is not None
    assert live.low < live.value < live.high
    for name in WAYS:
        took = rows[f"freshness_value.conversion.{name}.recovered_after"]
        assert took.unit in ("days", "days, not yet")
        assert 3 <= took.value <= 13


def test_servers_are_refused_where_none_is_used() -> None:
    result = CliRunner().invoke(cli, ["bench", "freshness-value", "--redis-url", "redis://localhost"])
    assert result.exit_code == 2
    assert "freshness-value needs no servers" in result.output
