"""``millrace stack`` from the outside: up twice, status, killed members, down; and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.embedded.stack import Stack, ephemeral
from millrace.errors import InfrastructureError
from millrace.settings import StackSettings
from tests.conftest import StartProcess
from tests.processes import PATIENCE_S, belonging_to, in_time

# Free ports: a developer's own stack may hold the usual ones.
FREE_PORTS = {f"MILLRACE_STACK_{name}_PORT": "0" for name in ("KAFKA", "REDIS", "MLFLOW")}


@pytest.fixture
def millrace(process: StartProcess, millrace_home: Path) -> Iterator[Any]:
    """Runs ``millrace`` to its end; gives exit status and output."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        child = process("millrace", *arguments, env=FREE_PORTS | dict(env or {}))
        return child.wait(), child.output()

    yield run
    run("stack", "down")


def members(status: str) -> dict[str, dict[str, Any]]:
    return {member["name"]: member for member in json.loads(status)["members"]}


def test_a_persistent_stack_from_up_to_down(millrace: Any, millrace_home: Path) -> None:
    assert millrace("stack", "down") == (0, "nothing was running\n")
    code, output = millrace("stack", "status")
    assert code == 1
    assert "not running" in output

    code, output = millrace("stack", "up")
    assert code == 0, output
    assert "resolving Kafka's jars" in output
    env_file = (millrace_home / "stack.env").read_text()
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "MLFLOW_TRACKING_URI"):
        assert f"{name}=" in env_file
    code, output = millrace("stack", "status", "--json")
    before = members(output)
    assert code == 0
    assert all(member["state"] == "ready" for member in before.values())

    # A second `up` is harmless.
    code, _ = millrace("stack", "up")
    assert code == 0
    assert {name: member["pid"] for name, member in members(millrace("stack", "status", "--json")[1]).items()} == {
        name: member["pid"] for name, member in before.items()
    }

    # A killed member is started again by its supervisor.
    os.kill(before["redis"]["pid"], signal.SIGKILL)
    again: dict[str, Any] = {}

    def back() -> bool:
        again.update(members(millrace("stack", "status", "--json")[1])["redis"])
        return again["state"] == "ready" and again["pid"] not in (0, before["redis"]["pid"])

    in_time(back)

    # One that cannot come up is named, with its log.
    (millrace_home / "stack" / "redis" / "redis.conf").write_text("nonsense yes\n")
    os.kill(again["pid"], signal.SIGKILL)
    in_time(lambda: members(millrace("stack", "status", "--json")[1])["redis"]["state"] == "dead")
    code, output = millrace("stack", "status")
    assert code == 1
    assert "redis   dead" in output
    assert "redis.log" in output
    assert "nonsense" in output

    assert millrace("stack", "down") == (0, "stopped\n")
    assert belonging_to(millrace_home) == {}
    assert not (millrace_home / "stack.env").exists()
    assert millrace("stack", "down") == (0, "nothing was running\n")


def test_a_killed_supervisor_is_no_obstacle(millrace: Any, millrace_home: Path) -> None:
    """Members that lost their supervisor are reported, replaced by the next `up`, and stopped by `down`."""
    assert millrace("stack", "up")[0] == 0
    supervisord = int((millrace_home / "stack" / "supervisord.pid").read_text())
    os.kill(supervisord, signal.SIGKILL)
    in_time(lambda: not psutil.pid_exists(supervisord))
    orphans = belonging_to(millrace_home)
    assert orphans

    code, output = millrace("stack", "status")
    assert code == 1
    assert "its supervisor is gone" in output

    assert millrace("stack", "up")[0] == 0
    assert not set(orphans) & set(belonging_to(millrace_home))
    os.kill(int((millrace_home / "stack" / "supervisord.pid").read_text()), signal.SIGKILL)
    assert millrace("stack", "down") == (0, "stopped\n")
    assert belonging_to(millrace_home) == {}


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ephemeral_stack_leaves_nothing(
    process: StartProcess, tmp_path_factory: pytest.TempPathFactory, end: signal.Signals
) -> None:
    # A short name: the path of the supervisor's socket begins with it, and has at most 107 bytes.
    temporary = tmp_path_factory.mktemp("t")
    child = process("millrace", "stack", "up", "--ephemeral", "--json", env={"TMPDIR": str(temporary)})
    child.until(lambda: "MLFLOW_TRACKING_URI" in child.output())
    (folder,) = temporary.glob("millrace-stack-*")
    running = psutil.Process(child.pid).children(recursive=True)
    assert len(running) >= 4, "supervisord and three members"

    os.kill(child.pid, end)
    child.wait()
    _, alive = psutil.wait_procs(running, timeout=PATIENCE_S)
    assert alive == []
    # Whoever is killed cannot remove a folder; everyone else does.
    assert folder.exists() == (end == signal.SIGKILL)


def test_a_member_that_fails_at_start_is_named_and_the_others_are_stopped(tmp_path: Path) -> None:
    """The error holds the end of the member's log, and what was started is stopped."""
    (tmp_path / "stack" / "redis").mkdir(parents=True)
    (tmp_path / "stack" / "redis" / "appendonly.aof").write_text("damaged")
    settings = StackSettings(kafka_port=0, redis_port=0)
    with pytest.raises(InfrastructureError, match=r"(?s)redis: ended instead of starting.*redis\.log.*AOF"):
        Stack(tmp_path / "stack", settings, members=("kafka", "redis")).up()
    assert belonging_to(tmp_path) == {}


def test_from_python_only_the_members_that_were_asked_for_run() -> None:
    with ephemeral(members=("redis",)) as addresses:
        assert addresses.redis.startswith("redis://127.0.0.1:")
        assert addresses.kafka == addresses.mlflow == ""
