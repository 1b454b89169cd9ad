"""One whole pipeline for the tests that look at it from outside; their modules come last, one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Child, starting

PORTS = ("STACK_KAFKA", "STACK_REDIS", "STACK_MLFLOW", "RECOMMENDER", "GATEWAY")


@dataclass(frozen=True)
class Pipeline:
    """What `make run` starts.

    Attributes
    ----------
    home
        Its MILLRACE_HOME.
    """

    run: Child
    home: Path


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """It has begun, with shoppers, on free ports; outcomes come within seconds."""
    home = tmp_path_factory.mktemp("pipeline")
    env = {f"MILLRACE_{name}_PORT": "0" for name in PORTS}
    env |= {"MILLRACE_HOME": str(home), "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": "3000"}
    with starting(tmp_path_factory.mktemp("run")) as start:
        run = start("millrace", "run", "--rate", "20", env=env)
        yield Pipeline(run, home)
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(60) == 0
