"""``millrace`` on a module's broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from millrace.cli.main import main
from millrace.settings import KafkaSettings, settings
from tests.cli_support import Run


@pytest.fixture
def cli_env(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], millrace_home: Path) -> Mapping[str, str]:
    """Environment of a command, and of workers that commit at once."""
    return {**kafka_env, "MILLRACE_HOME": str(millrace_home), "MILLRACE_STREAM_DURABILITY_MARGIN_MS": "0"}


@pytest.fixture
def run(
    cli_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a command in this process, which saves a second each: what it prints, on both ways."""
    for name, value in cli_env.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()

    def command(*arguments: str, status: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["millrace", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert (ended.value.code or 0) == status, (arguments, printed.err)
        return printed.out, printed.err

    yield command
    settings.cache_clear()
