"""Writes docs/metrics.md from the code: ``python -m deploy.prometheus.document``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.prometheus.catalogue import ROOT, Metric, catalogue

DOCUMENT = ROOT / "docs" / "metrics.md"
ALERTS = Path(__file__).parent / "alerts.yml"
HEAD = Path(__file__).parent / "metrics.head.md"

PARTS: Mapping[str, str] = {
    "stream": "every worker (label `worker`), and what reads topics without a group",
    "features": "feature updater",
    "joiner": "outcome joiner",
    "learner": "online learner",
    "drift": "drift detector",
    "tracker": "experiment tracker",
    "orchestrator": "retrain orchestrator",
    "recommender": "recommender",
    "gateway": "gateway",
    "simulation": "`millrace simulate`",
}
"""Part of a metric's name -> the processes that have it."""


def document() -> str:
    """The page."""
    metrics = catalogue()
    lines = [HEAD.read_text() + "\n".join(f"| `{part}` | {processes} |" for part, processes in PARTS.items())]
    for part in PARTS:
        lines += [f"\n## {part.capitalize()}\n", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        lines += [_row(metric) for metric in metrics.values() if metric.part == part]
    lines += ["\n## Alerts\n", "Rules: `deploy/prometheus/alerts.yml`, tested by `alerts_test.yml`.\n"]
    lines += ["| alert | severity | after | says |", "|---|---|---|---|"]
    lines += [
        f"| `{rule['alert']}` | {rule['labels']['severity']} | {rule.get('for', '0s')} "
        f"| {rule['annotations']['description']} |"
        for rule in alerts()
    ]
    return "\n".join(lines) + "\n"


def alerts() -> Sequence[Mapping[str, Any]]:
    """The alert rules, as they stand in the file."""
    return list(_rules())


def _rules() -> Iterator[Mapping[str, Any]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from group["rules"]


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help.replace('|', '/')} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
