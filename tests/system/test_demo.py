"""The demo on real parts, shortened: it tells what happens, ends at Ctrl-C, and leaves plots only."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from deploy.demo import plots
from tests.conftest import StartProcess

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PORTS = ("STACK_KAFKA", "STACK_REDIS", "STACK_MLFLOW", "RECOMMENDER", "GATEWAY")
LONGEST_S = 600
"""Every server and process starts, and the simulated month goes on beside them."""


def left() -> list[str]:
    """Command lines of processes that a demo has started and that still run."""
    return [
        " ".join(one.info["cmdline"] or ())
        for one in psutil.process_iter(["environ", "cmdline"])
        if "millrace-demo-" in (one.info["environ"] or {}).get("MILLRACE_HOME", "")
    ]


def test_a_story_until_ctrl_c(process: StartProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / "plots"
    env = {f"MILLRACE_{name}_PORT": "0" for name in PORTS}
    demo = process("millrace", "demo", "--minutes", "1", "--speed", "2", "--folder", str(folder), env=env)
    demo.until(lambda: "a third of the catalogue is sold out" in demo.output(), LONGEST_S)
    os.kill(demo.pid, signal.SIGINT)
    assert demo.wait(LONGEST_S) == 130, demo.output()
    assert "Click-through at the end" in demo.output()
    assert "No trained version was promoted" in demo.output(), "a minute is too short, and that is said"
    assert demo.output().splitlines()[-1] == f"plots: {folder}"
    assert "Black Friday" in (folder / plots.CLICK_THROUGH).read_text()
    assert left() == []
    assert list(tmp_path.glob("millrace-demo-*")) == []
