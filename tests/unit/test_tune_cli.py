"""``millrace tune`` prints what ``evaluate`` and the workers take: lines for ``.env``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dotenv import dotenv_values

from millrace.cli import evaluate
from millrace.cli._evaluate_options import Passes
from millrace.cli.tune import command, env_lines
from millrace.evaluation.search import Found, Gain
from millrace.evaluation.stream import EventStream, Happened, checksum
from millrace.settings import settings
from tests.evaluation_support import stream

MAP = ("--map", "user=who,item=what,time=at,session=visit")


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "clicks.tsv"
    lines = [f"{one.user_id}\t{one.item_id}\t{one.occurred_at_ms}\t{one.session_id}" for one in stream(120)]
    path.write_text("\n".join(["who\twhat\tat\tvisit", *lines]) + "\n")
    return path


def tune(clicks: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        command, ["--events", str(clicks), *MAP, "--warm-up", "400", *arguments], catch_exceptions=False
    )


def test_what_it_prints_are_settings_that_evaluate_takes(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bad setting in force, so that there is something to find: what follows what is forgotten at once.
    monkeypatch.setenv("MILLRACE_FEATURES_NEIGHBOUR_HALF_LIFE_MS", "1")
    settings.cache_clear()
    result = tune(clicks, "--budget", "2", "-k", "5")
    assert result.exit_code == 0
    assert "the first 400 of 600 events" in result.stdout
    assert "pass 2 of at most 2: MILLRACE_FEATURES_NEIGHBOUR_HALF_LIFE_MS=3600000" in result.stderr
    assert "HR@5" in result.stdout
    found = dotenv_values(stream=io.StringIO(result.stdout))
    assert found == {"MILLRACE_FEATURES_NEIGHBOUR_HALF_LIFE_MS": "3600000"}

    monkeypatch.delenv("MILLRACE_FEATURES_NEIGHBOUR_HALF_LIFE_MS")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(result.stdout)
    settings.cache_clear()
    assert settings().features.neighbour_half_life_ms == 3_600_000
    arguments = ["--events", str(clicks), *MAP, "--warm-up", "400", "--json"]
    assert CliRunner().invoke(evaluate.command, arguments, catch_exceptions=False).exit_code == 0
    monkeypatch.undo()
    settings.cache_clear()


def test_what_does_not_hold_later_is_not_in_force() -> None:
    worse, better = ({"hr": rate, "mrr": rate} for rate in (0.1, 0.2))
    found = Found(
        {"MILLRACE_FEATURES_SESSION_CONTEXT": 10},
        400,
        2,
        searched=Gain(100, worse, better, (0.2, 0.1, 0.3)),
        confirmed=Gain(50, better, worse, (-0.2, -0.3, -0.1)),
    )
    happened = [Happened("u", "a", 2, 0, "s", 0.0, "")]
    passes = Passes("next-in-session", "0", 20, 0, 1, 0, (), 0)
    printed = env_lines(found, EventStream("test", happened, [0], 0, checksum(happened)), passes)
    assert "stay with the settings in force" in printed
    assert dotenv_values(stream=io.StringIO(printed)) == {}
    assert "# MILLRACE_FEATURES_SESSION_CONTEXT=10" in printed.splitlines()


def test_json(clicks: Path) -> None:
    found = json.loads(tune(clicks, "--budget", "2", "--json").stdout)
    assert found.keys() == {"choice", "past", "passes", "searched", "confirmed"}
    assert (found["past"], found["passes"]) == (400, 2)
    assert found["searched"].keys() == {"n", "before", "after", "gain"}


@pytest.mark.parametrize("arguments", [("--lag", "0,1h"), ("--negatives", "100"), ("--without", "sessions")])
def test_one_way_to_go_through_the_events(clicks: Path, arguments: tuple[str, ...]) -> None:
    result = tune(clicks, *arguments)
    assert result.exit_code == 2
    assert "tune takes one --lag" in result.output
