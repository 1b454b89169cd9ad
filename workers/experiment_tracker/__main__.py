"""``python -m workers.experiment_tracker``."""

from __future__ import annotations

import click

from millrace.settings import settings
from millrace.stream.process import run_worker
from workers.experiment_tracker.worker import ExperimentTracker


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Count what comes of each arm and decide by rule, until SIGTERM. A second process stands by."""
    ours = settings()
    run_worker(ExperimentTracker(ours), ours)


if __name__ == "__main__":
    main(prog_name="python -m workers.experiment_tracker")
