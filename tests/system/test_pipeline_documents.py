"""README and guide are run as they stand there, beside the pipeline that they tell to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Child
from tests.documents import DOCUMENTS, ROOT, script
from tests.system.conftest import Pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

# Of the gateway, as README and guide write it.
WRITTEN = "localhost:8000"
# All servers and processes start, and some thirty commands: a busy machine takes long.
LONGEST_S = 600


@pytest.fixture(scope="module")
def gateway(pipeline: Pipeline) -> str:
    """Its address, when shoppers are shown something."""
    pipeline.run.until(lambda: _well(pipeline.run), timeout_s=LONGEST_S)
    [announced] = (pipeline.home / "run").glob("gateway-*.json")
    return str(json.loads(announced.read_text())["http"])


def _well(run: Child) -> bool:
    """Whether every process is ready, and the model has learned."""
    last = run.output().rstrip().rpartition("\n")[2]
    return last.endswith("all ready") and ", update " in last


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_blocks_run_in_their_order(pipeline: Pipeline, gateway: str, document: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"PATH": path, "COLUMNS": "160", "MILLRACE_HOME": str(pipeline.home)}
    done = subprocess.run(
        ["bash", "-c", script(document).replace(WRITTEN, gateway)],
        cwd=ROOT,
        env=os.environ | ours,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
