"""``millrace run`` on real parts: it comes up, survives killed processes, and leaves nothing running."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from millrace.stream import scrape
from millrace.stream.scrape import all_announcements
from tests.conftest import Child, StartProcess
from tests.processes import belonging_to, in_time

# Free ports: a developer's own stack may hold the usual ones.
FREE_PORTS = {
    "MILLRACE_STACK_KAFKA_PORT": "0",
    "MILLRACE_STACK_REDIS_PORT": "0",
    "MILLRACE_STACK_MLFLOW_PORT": "0",
    "MILLRACE_RECOMMENDER_PORT": "0",
    "MILLRACE_GATEWAY_PORT": "0",
}
START_TIMEOUT_S = 240
# Each test starts every server and process there is.
pytestmark = pytest.mark.timeout(900)


def announced(home: Path) -> dict[str, int]:
    """Process id of each process that says where it listens."""
    return {one.process: one.pid for one in all_announcements(home / "run") if psutil.pid_exists(one.pid)}


WORKERS = (
    "feature_updater",
    "outcome_joiner",
    "online_learner",
    "experiment_tracker",
    "drift_detector",
    "retrain_orchestrator",
    "recommender",
    "gateway",
)


def started(process: StartProcess, home: Path, *arguments: str) -> Child:
    child = process("millrace", "run", *arguments, env=FREE_PORTS)
    child.until(lambda: announced(home).keys() >= set(WORKERS), timeout_s=START_TIMEOUT_S)
    return child


def doctor(process: StartProcess) -> dict[str, Any]:
    child = process("millrace", "doctor", "--json", env=FREE_PORTS)
    child.wait()
    answer: dict[str, Any] = json.loads(child.output())
    return answer


def test_a_run_from_start_to_ctrl_c(process: StartProcess, millrace_home: Path) -> None:
    child = started(process, millrace_home, "--rate", "20")

    # Everything works, as `millrace doctor` sees it in another terminal, which finds the addresses by itself.
    checked: dict[str, str] = {}

    def well() -> bool:
        told = doctor(process)
        checked.update({check["name"]: check["state"] for check in told["checks"]})
        return told["ok"] and "process simulate" in checked

    in_time(well)
    for name in (*WORKERS, "simulate"):
        assert checked[f"process {name}"] == "ok"

    # A second one in the same folder is refused and disturbs nothing.
    second = process("millrace", "run", env=FREE_PORTS)
    assert second.wait() == 1
    assert "already runs" in second.output()

    # A killed worker is started again.
    killed, before = announced(millrace_home)["feature_updater"], len(child.output())
    os.kill(killed, signal.SIGKILL)
    in_time(lambda: announced(millrace_home).get("feature_updater", killed) != killed)
    # The run says so: not well, then well again.
    child.until(lambda: "feature_updater starting" in child.output()[before:])
    child.until(lambda: child.output().rstrip().endswith("all ready"))

    os.kill(child.pid, signal.SIGINT)
    assert child.wait() == 0
    assert "all ready" in child.output().splitlines()[-1]
    assert belonging_to(millrace_home) == {}
    assert not (millrace_home / "stack.env").exists()


def saw_everything(home: Path) -> bool:
    """Whether there is something of all that a summary tells: every process ready, people, and what was learned."""
    found = {one.process: one.metrics for one in all_announcements(home / "run") if psutil.pid_exists(one.pid)}
    handled = scrape.total(scrape.samples(found["feature_updater"]), "millrace_stream_records_total")
    learned = scrape.total(scrape.samples(found["online_learner"]), "millrace_learner_slots_total")
    shop = scrape.samples(found["simulate"])
    pages, clicks = (scrape.total(shop, f"millrace_simulation_{name}_total") for name in ("pages", "clicks"))
    return (
        all(scrape.readiness(address)[0] for address in found.values())
        and scrape.readiness(found["recommender"])[1].get("learner_sequence", 0) > 0
        and min(handled - 200, learned, pages - 50, clicks) > 0
    )


def test_a_run_prints_what_it_saw(process: StartProcess, millrace_home: Path) -> None:
    child = process("millrace", "run", "--rate", "20", "--json", env=FREE_PORTS)
    child.until(lambda: announced(millrace_home).keys() >= {*WORKERS, "simulate"}, timeout_s=START_TIMEOUT_S)
    child.until(lambda: saw_everything(millrace_home), timeout_s=START_TIMEOUT_S, interval_s=0.5)
    os.kill(child.pid, signal.SIGINT)
    code = child.wait()
    output = child.output()
    summary = json.loads(output[output.index("{\n") :])

    assert code == 0, output
    assert summary["healthy"] is True
    assert summary["events"] > 200
    assert summary["freshness_ms"]["p50"] > 0
    assert summary["learning"]["model_version"]
    assert summary["learning"]["learned"] > 0
    assert summary["learning"]["sequence"] > 0
    assert summary["shop"]["pages"] > 50
    assert summary["shop"]["click_through"] > 0
    assert len(summary["shown"]["items"]) == 5
    assert {one["name"]: one["state"] for one in summary["processes"]} == dict.fromkeys((*WORKERS, "simulate"), "ready")
    assert set(summary["addresses"]) == {"Kafka", "Redis", "MLflow", "gRPC", "REST", "console"}
    assert belonging_to(millrace_home) == {}


def test_live_learning_is_on_trial_over_all_runs_beside_the_truth(process: StartProcess, millrace_home: Path) -> None:
    """What was defined and started once goes on in the next run, and so does the truth."""
    told = re.compile(r"(live|popular) against frozen estimated (.+)% \((.+)% to (.+)%\), in truth (.+)%")

    def shown() -> dict[str, Any]:
        child = process("millrace", "experiments", "show", "live-learning", "--json", env=FREE_PORTS)
        content: dict[str, Any] = json.loads(child.output()) if child.wait() == 0 else {}
        return content

    def counts(content: dict[str, Any]) -> dict[str, int]:
        slots = {f"{one['name']} slots": int(one.get("slots", 0)) for one in content.get("figures", [])}
        return slots | {f"{name} pages": truth["pages"] for name, truth in content.get("truth", {}).items()}

    def run_until_more_than(before: dict[str, int]) -> dict[str, Any]:
        child = process("millrace", "run", "--rate", "40", env=FREE_PORTS)
        child.until(lambda: "experiment live-learning: running" in child.output(), timeout_s=START_TIMEOUT_S)
        content: dict[str, Any] = {}

        def more() -> bool:
            content.update(shown())
            now = counts(content)
            return all(now.get(name, 0) > count for name, count in before.items())

        child.until(more, timeout_s=START_TIMEOUT_S)
        assert child.terminate() == 0
        found = told.findall(child.output().rpartition("\nstopping\n")[2])
        assert [one[0] for one in found] == ["live", "popular"]
        for one in found:
            effect, low, high, truth = map(int, one[1:])
            assert low <= effect <= high
            assert low <= truth <= high
        return content

    arms = ("frozen", "live", "popular")
    first = run_until_more_than({f"{arm} {what}": 50 for arm in arms for what in ("slots", "pages")})
    second = run_until_more_than(counts(first))
    assert second["started_at_ms"] == first["started_at_ms"]
    assert second["accepted_command_ids"] == first["accepted_command_ids"]
    assert belonging_to(millrace_home) == {}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_ends_nothing_is_left_running(
    process: StartProcess, millrace_home: Path, end: signal.Signals
) -> None:
    child = started(process, millrace_home, "--rate", "20", "--headless")
    child.until(lambda: "simulate" in announced(millrace_home))
    assert len(belonging_to(millrace_home)) >= 14, "the command, two supervisors, three servers, eight processes"

    os.kill(child.pid, end)
    child.wait()
    in_time(lambda: belonging_to(millrace_home) == {})


def test_a_stack_that_was_up_stays_up(process: StartProcess, millrace_home: Path) -> None:
    assert process("millrace", "stack", "up", env=FREE_PORTS).wait(START_TIMEOUT_S) == 0
    before = (millrace_home / "stack.env").read_text()
    try:
        child = started(process, millrace_home, "--rate", "0")
        child.until(lambda: "all ready" in child.output())
        assert "MILLRACE_RECOMMENDER_TARGET=" in (millrace_home / "stack.env").read_text()
        assert child.terminate() == 0

        assert (millrace_home / "stack.env").read_text() == before
        in_time(lambda: process("millrace", "stack", "status", env=FREE_PORTS).wait() == 0)
    finally:
        assert process("millrace", "stack", "down", env=FREE_PORTS).wait() == 0
    assert belonging_to(millrace_home) == {}
