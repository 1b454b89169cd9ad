"""``millrace config``: every setting, where its value came from, and what is wrong with a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from millrace.cli._settings import knobs
from millrace.cli.config import command
from millrace.errors import MillraceError
from millrace.settings import Settings


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def value(variable: str) -> tuple[str, str]:
    return next((knob.value, knob.source) for knob in knobs() if knob.variable == variable)


def test_every_setting_is_there_once_and_described() -> None:
    shown = knobs()
    count = sum(len(group.model_fields) for group in Settings.groups.values())
    assert len(shown) == count + 1  # and MILLRACE_HOME
    assert len({knob.variable for knob in shown}) == count + 1
    assert [knob.variable for knob in shown if not knob.description] == []
    assert ("MILLRACE_DATA", "client") in {(knob.variable, knob.group) for knob in shown}


def test_sources_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value("KAFKA_PARTITIONS") == ("6", "default")
    (tmp_path / "home" / "stack.env").write_text("KAFKA_PARTITIONS=3\n")
    assert value("KAFKA_PARTITIONS") == ("3", "stack.env")
    (tmp_path / ".env").write_text("kafka_partitions=4\n")
    assert value("KAFKA_PARTITIONS") == ("4", ".env")
    monkeypatch.setenv("KAFKA_PARTITIONS", "5")
    assert value("KAFKA_PARTITIONS") == ("5", "environment")


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "geheim")
    monkeypatch.setenv("REDIS_URL", "rediss://shop:geheim@example.test:6380/0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://:geheim@example.test")
    result = CliRunner().invoke(command, ["--json"])
    assert "geheim" not in result.output
    shown = {knob["variable"]: knob["value"] for knob in json.loads(result.output)}
    assert shown["REDIS_URL"] == "rediss://shop:***@example.test:6380/0"
    assert shown["KAFKA_SASL_PASSWORD"] == "***"
    assert value("KAFKA_SASL_USERNAME") == ("", "default")


def test_all_invalid_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PARTITIONS", "many")
    monkeypatch.setenv("MILLRACE_METRICS_PORT", "99999")
    with pytest.raises(MillraceError, match=r"KAFKA_PARTITIONS: .*integer.*MILLRACE_METRICS_PORT: .*65535"):
        knobs()


def test_piped_output_is_one_line_a_setting() -> None:
    lines = CliRunner().invoke(command).output.splitlines()
    assert lines[0].split("\t") == ["variable", "value", "from", "meaning"]
    assert len(lines) == len(knobs()) + 1
    assert {line.count("\t") for line in lines} == {3}
