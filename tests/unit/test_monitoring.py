"""Metrics, their page, the alert rules and the dashboards name the same things, by one scheme."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from deploy.grafana.__main__ import ALL, FOLDER, text
from deploy.grafana.panels import Dashboard
from deploy.prometheus.catalogue import Metric, catalogue
from deploy.prometheus.document import ALERTS, DOCUMENT, PARTS, alerts, document
from millrace.settings import ObservabilitySettings, home
from millrace.stream.http import Readiness, serve_health, target_file

METRICS = catalogue()
SERIES = {series: metric for metric in METRICS.values() for series in metric.series}
# What Prometheus adds, and what it makes of a histogram.
ADDED = {"instance", "job", "process", "le"}
# Words of PromQL that stand where a label may, and series that are not ours.
OTHERS = {"up", "ALERTS", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
_NAME = re.compile(r"\bmillrace_[a-z0-9_]+")
_SELECTOR = re.compile(r"\b(millrace_[a-z0-9_]+)\{([^}]*)\}")
_MATCHER = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"by \(([^)]*)\) \(")

EXPRESSIONS = {
    **{f"alert {rule['alert']}": str(rule["expr"]) for rule in alerts()},
    **{f"{page.name}: {query.expression}": query.expression for page in ALL for query in page.queries},
}


def test_the_page_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text() == document(), "make monitoring"


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_dashboards_are_what_the_code_says(page: Dashboard) -> None:
    written = FOLDER / f"{page.name}.json"
    assert written.read_text() == text(page), "make monitoring"
    content = json.loads(text(page))
    panels = content["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    assert all(panel.get("description") for panel in panels if panel["type"] != "row")


def test_no_dashboard_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {page.name for page in ALL}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_names_follow_the_scheme(metric: Metric) -> None:
    assert re.fullmatch(r"millrace_[a-z]+(_[a-z0-9]+)+", metric.name)
    assert metric.part in PARTS
    assert metric.help.endswith(".")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(
        r"_(ms|millis|micros|minutes|hours|kb|kib|percent)(_|$)", metric.name.replace("drift_hours", "")
    )
    assert not {"user", "user_id", "item", "item_id", "request_id"} & set(metric.labels)
    if "max" in metric.name.split("_"):
        assert metric.kind == "gauge"
        assert metric.name.replace("_max", "", 1) in METRICS, "what it bounds"


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_rules_and_dashboards_ask_for_what_there_is(where: str) -> None:
    expression = EXPRESSIONS[where]
    names = set(_NAME.findall(expression))
    assert names <= SERIES.keys(), names - SERIES.keys()
    assert names or any(name in expression for name in OTHERS)
    labels = {label for name in names for label in SERIES[name].labels} | ADDED
    for name, matchers in _SELECTOR.findall(expression):
        assert set(_MATCHER.findall(matchers)) <= {*SERIES[name].labels, *ADDED}
    for grouping in _GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= labels


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tests = yaml.safe_load(ALERTS.with_name("alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for rule in alerts():
        mine = [case for case in cases if case["alertname"] == rule["alert"]]
        assert any(case["exp_alerts"] for case in mine), rule["alert"]
        if rule["alert"] != "MillraceDeadLetters":  # told while other letters come
            assert any(not case["exp_alerts"] for case in mine), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}
    used = {name for test in tests for series in test["input_series"] for name in _NAME.findall(series["series"])}
    assert used <= SERIES.keys()


def test_prometheus_looks_where_processes_say_that_they_listen(millrace_home: Path) -> None:
    config = yaml.safe_load(ALERTS.with_name("prometheus.yml").read_text())
    (pattern,) = config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert Path(pattern).parts[-3:] == (*target_file("w").relative_to(home()).parts[:2], "*.json")
    with serve_health(ObservabilitySettings(metrics_port=0), "watched", lambda: Readiness(True)) as server:
        target = target_file("watched")
        assert json.loads(target.read_text()) == [{"targets": [server.address], "labels": {"process": "watched"}}]
    assert not target.exists()
