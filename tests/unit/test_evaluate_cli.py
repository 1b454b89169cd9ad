"""``millrace evaluate`` from the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from millrace.cli.evaluate import command
from millrace.cli.main import cli
from millrace.errors import MillraceError
from millrace.settings import home
from tests.evaluation_support import stream

FIELDS = (
    *("lag", "protocol", "k", "n", "hr", "recall", "mrr", "ndcg", "mpr", "coverage", "ci95"),
    *("recommend_us_p90", "update_us_p90"),
)
MAP = ("--map", "user=who,item=what,time=at,session=visit")


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "clicks.tsv"
    lines = [f"{one.user_id}\t{one.item_id}\t{one.occurred_at_ms}\t{one.session_id}" for one in stream(80)]
    path.write_text("\n".join(["who\twhat\tat\tvisit", *lines]) + "\n")
    return path


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_rows_of_json(clicks: Path) -> None:
    result = evaluate("--events", str(clicks), *MAP, "--lag", "0,2m,100sessions", "--k", "10", "--json")
    rows = json.loads(result.stdout)["rows"]
    assert [row["lag"] for row in rows] == ["0", "2m", "100sessions"]
    for row in rows:
        assert tuple(row)[: len(FIELDS)] == FIELDS
        assert (row["protocol"], row["k"], row["n"]) == ("next-in-session", 10, 320)
        for name in ("hr", "recall", "mrr", "ndcg", "mpr", "coverage"):
            assert 0 <= row[name] <= 1
        assert row["ci95"].keys() == {"hr", "recall", "mrr", "ndcg"}
        assert row["ci95"]["hr"][0] <= row["hr"] <= row["ci95"]["hr"][1]
        assert all(math.isfinite(row[name]) and row[name] > 0 for name in ("recommend_us_p90", "update_us_p90"))
    assert rows[0]["hr"] > rows[1]["hr"] > rows[2]["hr"] == 0.0, "there are 80 sessions: nothing is learned"


def test_tables_for_people(clicks: Path) -> None:
    result = evaluate("--events", str(clicks), *MAP, "--every", "3", "--warm-up", "100")
    assert result.exit_code == 0
    assert "popularity bias" in result.stdout
    assert "casual" in result.stdout


def test_plots_are_drawn(clicks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    arguments = ("--events", str(clicks), *MAP, "--every", "4", "--lag", "0,2m", "--plots", str(folder))
    result = evaluate(*arguments)
    assert [path.name for path in sorted(folder.iterdir())] == ["lag.png", "segments.png", "stream.png"]
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert 5_000 < path.stat().st_size < 150_000
        assert f"drawn: {path}" in result.stderr


def test_ranks_among_some_are_said_to_be_that(clicks: Path) -> None:
    arguments = ("--events", str(clicks), *MAP, "--every", "4", "--negatives", "10")
    assert "biased" in evaluate(*arguments).stdout
    (row,) = json.loads(evaluate(*arguments, "--json").stdout)["rows"]
    assert row["negatives"] == 10
    assert "biased" in row["note"]
    (all_items,) = json.loads(evaluate(*arguments[:-2], "--json").stdout)["rows"]
    assert "negatives" not in all_items
    assert row["hr"] > all_items["hr"]
    assert row["coverage"] == all_items["coverage"], "answers are made as ever"
    refused = CliRunner().invoke(cli, ["evaluate", "--dataset", "globo", "--protocol", "serenade", "--negatives", "9"])
    assert refused.exit_code == 2
    assert "needs all items" in refused.output


def test_rows_say_how_they_came_about(clicks: Path) -> None:
    arguments = ("--events", str(clicks), *MAP, "--every", "4", "--warm-up", "50", "--seed", "3", "--json")
    (row,) = json.loads(evaluate(*arguments).stdout)["rows"]
    assert (row["every"], row["warm_up"], row["seed"]) == (4, 50, 3)
    assert row["popularity_bias"] > 0
    assert row["hr"] <= row["candidate"] <= 1
    assert sum(segment["n"] for segment in row["segments"].values()) == row["n"]


def test_parts_that_are_left_out_are_named(clicks: Path) -> None:
    arguments = ("--events", str(clicks), *MAP, "--every", "4")
    parts = ("--without", "learning", "--without", "sessions", "--without", "learning")
    assert "clicks.tsv without sessions and learning, next-in-session" in evaluate(*arguments, *parts).stdout
    (row,) = json.loads(evaluate(*arguments, *parts, "--json").stdout)["rows"]
    assert row["without"] == ["sessions", "learning"]
    (complete,) = json.loads(evaluate(*arguments, "--json").stdout)["rows"]
    assert complete["without"] == []
    assert complete["n"] == row["n"]
    assert complete["mrr"] != row["mrr"]
    unknown = CliRunner().invoke(command, [*arguments, "--without", "luck"])
    assert unknown.exit_code == 2
    assert "'neighbours', 'sessions', 'popularity', 'context', 'labels', 'repeats', 'learning'" in unknown.output


def test_a_catalogue_tells_what_users_like(tmp_path: Path) -> None:
    """Users who each stay with the items of one label: it is found out by the catalogue alone."""
    log, catalogue = tmp_path / "clicks.csv", tmp_path / "items.jsonl"
    rows = [
        f"u{user},{user % 2}-{(user * 7 + turn) % 40},{1_700_000_000 + turn * 60 + user}"
        for turn in range(12)
        for user in range(40)
    ]
    log.write_text("\n".join(["who,what,at", *rows]) + "\n")
    catalogue.write_text(
        "".join(f'{{"item_id": "{kind}-{item}", "category": "{kind}"}}\n' for kind in range(2) for item in range(40))
    )
    given = ("--events", str(log), "--map", "user=who,item=what,time=at", "--protocol", "next-item", "--json")
    without, known = (
        json.loads(evaluate(*given, *more).stdout)["rows"][0] for more in ((), ("--items", str(catalogue)))
    )
    assert known["n"] == without["n"]
    assert known["mpr"] < without["mpr"]

    catalogue.write_text('{"item_id": "0-1"}\n{"item_id": "", "category": "x"}\n')
    with pytest.raises(MillraceError, match=r"items.jsonl, line 2: .*item_id"):
        evaluate(*given, "--items", str(catalogue))


def test_an_interrupted_run_without_a_part_is_gone_on_with_by_the_same_alone(
    clicks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--events", str(clicks), *MAP, "--every", "2", "--json")
    times = ("recommend_us_p90", "update_us_p90")

    def row(*parts: str) -> dict[str, Any]:
        (found,) = json.loads(evaluate(*arguments, *parts).stdout)["rows"]
        return {name: value for name, value in found.items() if name not in times}

    left = ("--without", "sessions"), ("--without", "sessions", "--without", "repeats"), ()
    expected = [row(*parts) for parts in left]

    class Interrupted(Exception):
        pass

    @contextmanager
    def interrupted(name: str, total: int | None) -> Iterator[Callable[[], None]]:
        del name, total
        steps = iter(range(250))

        def step() -> None:
            if next(steps, None) is None:
                raise Interrupted

        yield step

    kept = home() / "evaluate"
    with monkeypatch.context() as patch:
        patch.setattr("millrace.evaluation.figures.EVERY_S", 0.0)
        patch.setattr("millrace.cli.evaluate.events_bar", interrupted)
        for number, parts in enumerate(left, start=1):
            with pytest.raises(Interrupted):
                row(*parts)
            assert len(list(kept.iterdir())) == number
    for number, parts in enumerate(left, start=1):
        assert row(*parts) == expected[number - 1]
        assert len(list(kept.iterdir())) == len(left) - number


def test_sessions_by_period(tmp_path: Path) -> None:
    for period in range(2):
        lines = [f"{one.session_id} {one.item_id}" for one in stream(30, seed=period)]
        (tmp_path / f"p{period}.txt").write_text("\n".join(lines) + "\n")
    arguments = ("--events", str(tmp_path), "--format", "sessions", "--protocol", "ader", "--lag", "period", "--json")
    (row,) = json.loads(evaluate(*arguments).stdout)["rows"]
    assert 100 < row["n"] <= 120
    assert row["hr"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say what to evaluate"),
        (("--dataset", "netflix"), "is unknown"),
        (("--events", "/nowhere.csv"), "no file"),
        (("--events", "/tmp", *MAP), "is a folder"),
        (("--train", "/nowhere.csv"), "go together"),
        (("--train", "/nowhere", "--test", "/nowhere", "--format", "sessions"), "takes one folder"),
        (("--dataset", "globo", "--lag", "soon"), "--lag"),
    ],
)
def test_mistakes_are_messages(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(MillraceError, match=says):
        evaluate(*arguments)


def test_data_without_sessions_of_two_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("who,what,at,visit\nu,a,1700000001,1\nu,b,1700000002,2\n")
    with pytest.raises(MillraceError, match="asked before none of its 2 events"):
        evaluate("--events", str(path), *MAP)


def test_the_ablation_has_one_protocol(clicks: Path) -> None:
    result = CliRunner().invoke(
        cli, ["evaluate", "--events", str(clicks), *MAP, "--ablation", "learner", "--lag", "1h"]
    )
    assert result.exit_code == 2
    assert "goes with" in result.output
    result = CliRunner().invoke(command, ["--events", str(clicks), "--ablation", "learner", "--without", "repeats"])
    assert result.exit_code == 2
    assert "no --without" in result.output
    rows = json.loads(evaluate("--events", str(clicks), *MAP, "--ablation", "learner", "--json").stdout)["rows"]
    assert {"pointwise", "pairwise", "listwise"} < {row["learner"] for row in rows}
