"""``millrace models`` as people run it, with an orchestrator behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings, MlflowSettings
from tests.conftest import StartProcess
from tests.integration.orchestration import Model, orchestrator_env, until_ready
from tests.processes import PATIENCE_S

MILLRACE = Path(sys.executable).parent / "millrace"


class Cli:
    """Runs ``millrace models``."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MILLRACE, "models", *arguments],
            env=os.environ | self.env | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def model(request: pytest.FixtureRequest, topics_applied: KafkaSettings, mlflow_uri: str) -> Model:
    return Model(request.node.originalname, topics_applied, MlflowSettings(tracking_uri=mlflow_uri))


@pytest.fixture
def cli(kafka_env: Mapping[str, str], mlflow_uri: str, model: Model) -> Cli:
    return Cli({**kafka_env, **orchestrator_env(model.name, mlflow_uri)})


def test_list_promote_and_roll_back(
    process: StartProcess, kafka_env: Mapping[str, str], cli: Cli, model: Model, millrace_home: Path
) -> None:
    assert cli.json("list")["champion"] is None
    assert "no version yet" in cli("list").stdout
    child = process("workers.retrain_orchestrator", env=cli.env)
    until_ready(child, millrace_home)
    model.register("2")

    promoted = cli.json("promote", "2", "--reason", "better clicks")
    assert (promoted["version"], promoted["previous_version"], promoted["settled"]) == ("2", "1", True)
    assert promoted["reason"].startswith("better clicks, asked by ")
    listed = cli.json("list", "--registry")
    assert [(version["version"], version["champion"]) for version in listed["versions"]] == [("1", False), ("2", True)]
    assert listed["champion"]["reason"].startswith("better clicks")
    assert listed["registry"]["aliases"] == {"champion": "2"}
    assert "version 2 is the champion since" in cli("list").stdout

    rolled_back = cli("rollback")
    assert (rolled_back.returncode, rolled_back.stdout) == (
        0,
        f"version 1 of model {model.name!r} is the champion (before: version 2)\n",
    )
    refused = cli("promote", "9")
    assert refused.returncode == 1
    assert "has no version '9' (versions: 1, 2)" in refused.stderr
    unheard = cli.json("promote", "2", "--no-wait")
    assert unheard["settled"] is False
    child.until(lambda: cli.json("list")["champion"]["version"] == "2")


def test_list_needs_no_mlflow_and_does_not_import_it(cli: Cli, model: Model) -> None:
    model.register("1")
    listed = cli("list", "--json", PYTHONPROFILEIMPORTTIME="1")
    assert [version["version"] for version in json.loads(listed.stdout)["versions"]] == ["1"]
    imported = {line.rpartition("|")[2].strip() for line in listed.stderr.splitlines()}
    assert "millrace.registry.ledger" in imported
    assert "mlflow" not in imported, "importing it takes longer than all of this command"
    away = cli("list", "--registry", "--json", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 0
    assert json.loads(away.stdout)["registry"]["problem"].startswith("mlflow:")


def test_who_asks_in_vain_is_told_why(cli: Cli) -> None:
    nobody = cli("promote", "1", "--timeout", "2")
    assert nobody.returncode == 1
    assert "is it running" in nobody.stderr
    away = cli("promote", "1", "--timeout", "2", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert away.returncode == 1
    assert away.stderr.startswith("error: kafka:")
    nameless = cli("promote", "")
    assert (nameless.returncode, nameless.stderr.split(":")[1]) == (1, " promote.model_version")
