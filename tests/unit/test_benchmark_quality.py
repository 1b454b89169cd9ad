"""``make evaluate``: which rows there are, what a row holds, and a document that says what was not measured."""

from __future__ import annotations

import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.quality import __main__ as command
from benchmarks.quality import document, results
from benchmarks.quality.measuring import Measured, measure, moved
from benchmarks.quality.results import Results
from benchmarks.quality.runs import ABLATIONS, AIMS, HEADLINES, SERIES, TUNED, Run, all_runs, chosen, pairs
from millrace.cli import evaluate, tune
from millrace.cli._evaluate_options import Passes, taken
from millrace.evaluation.checkpoint import code_digest
from millrace.evaluation.parts import LABELS, PARTS
from millrace.settings import Settings
from tests.evaluation_support import stream

FIELDS = {
    *("name", "command", "lag", "protocol", "k", "n", "hr", "recall", "mrr", "ndcg", "mpr", "coverage", "ci95"),
    *("recommend_us_p90", "update_us_p90", "candidate", "popularity_bias", "segments", "warm_up", "every", "seed"),
    "without",
    *("events", "checksum", "settings", "tuning", "wall_s", "code", "commit", "machine", "versions"),
}


def silent(text: str) -> None:
    del text


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """Toy clicks, measured under names of real rows: live and late, and with tuned settings."""
    path = tmp_path_factory.mktemp("quality") / "clicks.csv"
    lines = [f"{one.user_id},{one.item_id},{one.occurred_at_ms},{one.session_id}" for one in stream(120)]
    path.write_text("\n".join(["who,what,at,visit", *lines]) + "\n")
    arguments = f"--events {path} --map user=who,item=what,time=at,session=visit --warm-up 300"
    runs = [
        Run("globo.lag.0", "toy", arguments),
        Run("globo.lag.1h", "toy", f"{arguments} --lag 2m"),
        Run("globo.first-300k", "toy", f"{arguments} --every 2"),
        Run("globo.first-300k.tuned", "toy", f"{arguments} --every 2", "--budget 2"),
        Run("globo.without.nothing", "toy", f"{arguments} --every 2"),
        Run("globo.without.sessions", "toy", f"{arguments} --every 2 --without sessions"),
    ]
    return {run.name: measure(run, Settings(), silent) for run in runs}


@pytest.fixture
def toy(measured: dict[str, Measured]) -> Results:
    found = Results({}, {})
    for one in measured.values():
        found.take(one)
    return found


def test_every_command_is_one_that_evaluate_and_tune_take() -> None:
    runs = all_runs()
    names = [run.name for run in runs]
    assert len(names) == len(set(names))
    for run in runs:
        given = evaluate.command.make_context("evaluate", shlex.split(run.arguments)).params
        passes = taken(Passes, given)
        assert len(passes.each) == 1
        assert passes.negatives == 0
        if run.tune:
            tune.command.make_context("tune", shlex.split(f"{run.arguments} {run.tune}"))
    for run in HEADLINES:
        assert "--every" not in run.arguments, "headline rows ask before every eligible event"
    assert {run.name for run in HEADLINES} == AIMS.keys()
    assert {name for pair in pairs() for name in pair} <= set(names)
    for series in SERIES:
        assert series.lags[0] == "0"
    by_name = {run.name: run for run in runs}
    for ablation in ABLATIONS:
        everything = by_name[ablation.everything].arguments
        assert "--without" not in everything
        assert set(PARTS) - set(ablation.parts) == (set() if ablation.labelled else {LABELS})
        for part in ablation.parts:
            assert by_name[f"{ablation.name}.without.{part}"].arguments == f"{everything} --without {part}"


def test_rows_are_chosen_by_name() -> None:
    runs = all_runs()
    assert chosen(runs, ()) == runs
    assert {run.name for run in chosen(runs, ["ml-100k.flurs"])} == {"ml-100k.flurs", "ml-100k.flurs.tuned"}
    assert {run.name for run in chosen(runs, ["*.tuned"])} == {run.name for run in runs if run.name.endswith(TUNED)}
    assert chosen(runs, ["netflix"]) == []


def test_a_row_says_where_it_comes_from(measured: dict[str, Measured]) -> None:
    for name, one in measured.items():
        row = one.row
        assert row.keys() == FIELDS
        assert row["name"] == name
        assert row["events"] == 600
        assert re.fullmatch("[0-9a-f]{16}", row["checksum"])
        assert row["code"] == code_digest()
        assert row["ci95"]["hr"][0] <= row["hr"] <= row["ci95"]["hr"][1]
        json.dumps(row)
    assert measured["globo.lag.0"].row["command"].startswith("millrace evaluate --events ")
    tuned = measured["globo.first-300k.tuned"].row
    assert tuned["command"].startswith("millrace tune --events ")
    assert tuned["tuning"]["passes"] == 2
    assert tuned["settings"] == (tuned["tuning"]["choice"] if tuned["tuning"]["confirmed"]["gain"][0] > 0 else {})


def test_settings_that_moved_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(Settings()) == {}
    monkeypatch.setenv("MILLRACE_FEATURES_NEIGHBOURS_KEPT", "20")
    monkeypatch.setenv("REDIS_TIMEOUT_MS", "1")
    assert moved(Settings()) == {"MILLRACE_FEATURES_NEIGHBOURS_KEPT": 20}


def test_results_are_kept_and_read_again(toy: Results, tmp_path: Path) -> None:
    file = tmp_path / "quality.json"
    results.write(toy, file)
    content = json.loads(file.read_text())
    assert [row["name"] for row in content["rows"]] == [run.name for run in all_runs() if run.name in toy.rows]
    again = results.read(file)
    assert again.rows == toy.rows
    for name, blocks in again.blocks.items():
        assert blocks.starts == toy.blocks[name].starts
        assert blocks.sums["mrr"] == pytest.approx(toy.blocks[name].sums["mrr"])
    assert (tmp_path / "quality-blocks.json").read_text().count("\n") == len(toy.rows) + 2
    assert results.read(tmp_path / "none.json").rows == {}

    assert {one["worse"] for one in content["differences"]} == {"globo.lag.1h", "globo.without.sessions"}
    for one in content["differences"][:2]:
        live, late = toy.rows["globo.lag.0"], toy.rows["globo.lag.1h"]
        assert (one["better"], one["worse"], one["n"]) == ("globo.lag.0", "globo.lag.1h", live["n"])
        metric = one["metric"]
        assert one["absolute"] == pytest.approx(live[metric] - late[metric])
        assert one["relative"] == pytest.approx(live[metric] / late[metric] - 1)
        assert one["absolute_ci95"][0] <= one["absolute"] <= one["absolute_ci95"][1]
        assert one["relative_ci95"][0] <= one["relative"] <= one["relative_ci95"][1]


def test_rows_that_several_runs_add_at_once_are_all_kept(
    measured: dict[str, Measured], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, both, met, read = tmp_path / "quality.json", Barrier(2), list[str](), results.read

    def read_and_meet(path: Path) -> Results:
        found = read(path)
        with suppress(BrokenBarrierError):  # nobody else came: it is alone with the file
            both.wait(0.5)
            met.append("two at once")
        return found

    monkeypatch.setattr(results, "read", read_and_meet)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: results.add(one, file), measured.values()))
    assert met == []
    kept = read(file)
    assert kept.rows.keys() == kept.blocks.keys() == measured.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"quality.json", "quality-blocks.json"}


def test_rows_of_other_code_are_not_compared_and_not_taken_for_measured(toy: Results) -> None:
    assert toy.comparable("globo.lag.0", "globo.lag.1h")
    row = toy.rows["globo.lag.0"]
    run = Run("globo.lag.0", "toy", row["command"].removeprefix("millrace evaluate "))
    assert toy.measured(run, code_digest(), {})
    assert not toy.measured(run, "other", {})
    assert not toy.measured(run, code_digest(), {"MILLRACE_FEATURES_NEIGHBOURS_KEPT": 20})
    assert not toy.measured(replace(run, arguments="--dataset globo"), code_digest(), {})
    toy.rows["globo.lag.0"] = {**row, "code": "other"}
    assert not toy.comparable("globo.lag.0", "globo.lag.1h")
    assert {one["better"] for one in toy.differences()} == {"globo.without.nothing"}


def test_the_document_says_what_was_measured_and_what_was_not(toy: Results, tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    document.write(toy, page)
    text = page.read_text()
    assert f"**Not measured yet** ({len(all_runs()) - len(toy.rows)} of {len(all_runs())} rows)" in text
    row = toy.rows["globo.first-300k"]
    interval = "{:.4f} [{:.4f}, {:.4f}]".format(row["hr"], *row["ci95"]["hr"])
    verdict = "goal" if row["hr"] >= 0.79 else "floor" if row["hr"] >= 0.75 else "**misses the floor**"
    assert f"| globo, first 300,000 clicks | HR@20 |  | 0.75 | 0.79 | {interval} | {verdict} |" in text
    assert "| diginetica, ader, learning live | recall |  | 0.522 | 0.55 | not measured yet |  |" in text
    assert 'Not measured yet: `make evaluate ARGS="--only ml-latest-small.lag"`.' in text
    assert "| `diginetica.live` - `diginetica.weekly` | not measured yet | not measured yet |" in text
    (difference, _, adds, _) = toy.differences()
    assert "{:+.1f} % [".format(100 * difference["relative"]) in text
    assert "*sessions*: what stands in sessions like the user's" in text
    row, sessions = toy.rows["globo.without.nothing"], toy.rows["globo.without.sessions"]
    assert adds["absolute"] == pytest.approx(row["hr"] - sessions["hr"])
    added = "{:+.4f} [{:+.4f}, {:+.4f}]".format(adds["absolute"], *adds["absolute_ci95"])
    interval = "{:.4f} [{:.4f}, {:.4f}]".format(sessions["hr"], *sessions["ci95"]["hr"])
    assert f"| sessions | {sessions['n']:,} | {interval} | {added} | " in text
    assert "| repeats |  | not measured yet |  | not measured yet |  |" in text
    assert 'Not measured yet: `make evaluate ARGS="--only serenade.without"`.' in text
    for name in toy.rows:
        assert text.count(f"| `{name}` |") == 2, "among the figures and among the commands"
    drawn = re.findall(r"\]\((quality/[^)]+)\)", text)
    assert sorted(drawn) == ["quality/lag-globo.svg", "quality/segments.svg", "quality/stream.svg"]
    for path in drawn:
        assert (tmp_path / path).stat().st_size < 100_000
        assert "<svg" in (tmp_path / path).read_text()[:1_000]

    before = {path: (tmp_path / path).read_text() for path in drawn}
    document.write(toy, page)
    assert page.read_text() == text
    assert {path: (tmp_path / path).read_text() for path in drawn} == before, "the same figures, the same files"


def test_without_any_row_there_is_no_figure(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    document.write(Results({}, {}), page)
    text = page.read_text()
    assert f"({len(all_runs())} of {len(all_runs())} rows)" in text
    assert "![" not in text
    assert not (tmp_path / "quality").exists()


def test_the_command_replaces_only_the_rows_named(
    toy: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, page = tmp_path / "quality.json", tmp_path / "quality.md"
    results.write(toy, file)
    asked: list[str] = []

    def measure_toy(run: Run, *rest: Any) -> Measured:
        asked.append(run.name)
        row = {**toy.rows["globo.lag.0"], "name": run.name, "command": run.command, "n": 7}
        return Measured(row, toy.blocks["globo.lag.0"])

    monkeypatch.setattr(command, "measure", measure_toy)

    def make(*arguments: str) -> str:
        where = ("--results", str(file), "--document", str(page))
        return CliRunner().invoke(command.main, [*where, *arguments], catch_exceptions=False).output

    make("--only", "ml-100k.flurs")
    assert asked == ["ml-100k.flurs", "ml-100k.flurs.tuned"]
    kept = results.read(file).rows
    assert kept.keys() == toy.rows.keys() | set(asked)
    assert kept["globo.lag.0"] == toy.rows["globo.lag.0"]
    assert kept["ml-100k.flurs"]["n"] == 7
    assert "`ml-100k.flurs`" in page.read_text()
    assert "measured by this code already" in make("--only", "ml-100k.flurs")
    assert len(asked) == 2
    make("--only", "ml-100k.flurs", "--again")
    assert len(asked) == 4
    assert "ml-100k.flurs\tmeasured\t" in make("--list")
    assert "no such row" in make("--only", "netflix")
