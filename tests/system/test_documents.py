"""README and guide are run as they stand there, beside the pipeline that they tell to start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Child, starting
from tests.documents import DOCUMENTS, ROOT, script

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

# Of the gateway, as README and guide write it.
WRITTEN = "localhost:8000"
PORTS = ("STACK_KAFKA", "STACK_REDIS", "STACK_MLFLOW", "RECOMMENDER", "GATEWAY")
# All servers and processes start, and some thirty commands: a busy machine takes long.
LONGEST_S = 600


@pytest.fixture(scope="module")
def gateway(millrace_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `make run` starts, on free ports: the gateway's address, when shoppers are shown something."""
    env = {f"MILLRACE_{name}_PORT": "0" for name in PORTS}
    with starting(tmp_path_factory.mktemp("run")) as start:
        run = start("millrace", "run", "--rate", "10", env=env)
        run.until(lambda: _well(run), timeout_s=LONGEST_S)
        [announced] = (millrace_home / "run").glob("gateway-*.json")
        yield json.loads(announced.read_text())["http"]
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(60) == 0


def _well(run: Child) -> bool:
    """Whether every process is ready, and the model has learned."""
    last = run.output().rstrip().rpartition("\n")[2]
    return last.endswith("all ready") and ", update " in last


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_blocks_run_in_their_order(gateway: str, document: str) -> None:
    ours = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "160"}
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
