"""Writes the dashboards as Grafana imports them: ``python -m deploy.grafana``."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.learning import LEARNING
from deploy.grafana.now import NOW
from deploy.grafana.panels import Dashboard, as_json
from deploy.grafana.serving import SERVING
from deploy.grafana.workers import WORKERS

ALL = (NOW, WORKERS, SERVING, LEARNING)
FOLDER = Path(__file__).parent


def text(dashboard: Dashboard) -> str:
    """The file of a dashboard."""
    return json.dumps(as_json(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    for dashboard in ALL:
        (FOLDER / f"{dashboard.name}.json").write_text(text(dashboard))
