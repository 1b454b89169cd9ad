"""A real Prometheus beside the whole pipeline finds every process; every query of the dashboards has an answer."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from deploy.embedded.pipeline import PROCESSES, SIMULATE
from deploy.embedded.ports import free_port
from deploy.grafana.__main__ import ALL
from deploy.prometheus.catalogue import Metric, catalogue
from deploy.prometheus.document import ALERTS, alerts
from millrace.settings import KafkaSettings
from millrace.topics import INTERACTIONS
from tests.processes import in_time
from tests.stream_support import send
from tests.system.conftest import Pipeline
from tests.system.debian import programs

START_TIMEOUT_S = 240
METRICS = catalogue()
KNOWN = frozenset(series for metric in METRICS.values() for series in metric.series)
# The Python client says beside each histogram and counter since when it counts.
CREATED = frozenset(name.removesuffix("_bucket") + "_created" for name in KNOWN)
EVERY_PROCESS = frozenset({*PROCESSES, SIMULATE})
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def series(self, expression: str) -> list[Mapping[str, Any]]:
        """What an expression says now."""
        found: list[Mapping[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def up(self) -> set[str]:
        """Processes that answer it."""
        return {one["metric"]["process"] for one in self.series("up == 1")}


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return programs("prometheus", ("prometheus", "promtool"), tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="module")
def prometheus(
    tools: Mapping[str, Path], pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """One with our configuration, but quicker."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load(ALERTS.with_name("prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    (finding,) = config["scrape_configs"][0]["file_sd_configs"]
    finding["files"] = [str(pipeline.home / "run" / "targets" / "*.json")]
    finding["refresh_interval"] = "1s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [
                tools["prometheus"],
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        in_time(lambda: is_ready(address))
        yield Prometheus(address)
    finally:
        server.terminate()
        server.wait(30)


def test_promtool_accepts_rules_configuration_and_what_rules_do(tools: Mapping[str, Path]) -> None:
    for arguments in (
        ("check", "config", str(ALERTS.with_name("prometheus.yml"))),
        ("check", "rules", "--lint-fatal", str(ALERTS)),
        ("test", "rules", str(ALERTS.with_name("alerts_test.yml"))),
    ):
        done = subprocess.run([tools["promtool"], *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def exposition(metric: Metric) -> str:
    """A metric as a process would show it, with one made-up value."""
    pairs = [f'{label}="x"' for label in metric.labels]
    ends = (
        {"_bucket": [*pairs, 'le="+Inf"'], "_sum": pairs, "_count": pairs}
        if metric.kind == "histogram"
        else {"": pairs}
    )
    samples = [f"{metric.name}{end}{{{','.join(labels)}}} 1" for end, labels in ends.items()]
    return "\n".join([f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *samples, ""])


def test_names_pass_the_lint_of_prometheus(tools: Mapping[str, Path]) -> None:
    given = "".join(map(exposition, METRICS.values()))
    done = subprocess.run(
        [tools["promtool"], "check", "metrics"], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def post_event(home: Path) -> None:
    """An event over HTTP, acknowledged by the broker."""
    (announced,) = (home / "run").glob("gateway-*.json")
    body = json.dumps({"user_id": "anna", "item_id": "sku-7"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{json.loads(announced.read_text())['http']}/api/v1/event", body, headers)
    urllib.request.urlopen(request, timeout=10).close()


def answers(prometheus: Prometheus, expression: str) -> bool:
    """Whether an expression has an answer with a number in it."""
    return any(one["value"][1] != "NaN" for one in prometheus.series(expression.replace("$__rate_interval", "10s")))


def test_every_process_is_found_and_every_query_is_answered(prometheus: Prometheus, pipeline: Pipeline) -> None:
    pipeline.run.until(lambda: prometheus.up() == EVERY_PROCESS, timeout_s=START_TIMEOUT_S, interval_s=0.5)
    unanswered = {query.expression for page in ALL for query in page.queries}

    def all_answered() -> bool:
        # The shoppers come past the gateway.
        post_event(pipeline.home)
        unanswered.difference_update([expression for expression in unanswered if answers(prometheus, expression)])
        return not unanswered

    pipeline.run.until(all_answered, interval_s=0.5)
    scraped = {name for name in prometheus.ask("label/__name__/values") if name.startswith("millrace_")}
    assert scraped <= KNOWN | {name.removesuffix("_total") + "_created" for name in KNOWN} | CREATED
    # Only what a healthy run has no reason to count may be missing.
    assert all(METRICS[name].labels for name in KNOWN - scraped if name in METRICS)

    rules = {rule["name"]: rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert rules.keys() == {rule["alert"] for rule in alerts()}
    assert {rule["health"] for rule in rules.values()} == {"ok"}


def test_a_dead_letter_becomes_an_alert(prometheus: Prometheus, pipeline: Pipeline) -> None:
    brokers = dotenv_values(pipeline.home / "stack.env")["KAFKA_BOOTSTRAP_SERVERS"]
    send(KafkaSettings(bootstrap_servers=brokers), INTERACTIONS, [("u", b"\xff", [])])
    firing = 'ALERTS{alertname="MillraceDeadLetters", alertstate="firing"}'

    def told() -> bool:
        return {one["metric"]["worker"] for one in prometheus.series(firing)} >= {"feature_updater", "outcome_joiner"}

    pipeline.run.until(told, interval_s=0.5)
