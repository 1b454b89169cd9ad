"""``python -m workers.drift_detector``."""

from __future__ import annotations

import click

from millrace.settings import settings
from millrace.stream.process import run_worker
from workers.drift_detector.worker import DriftDetector


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compare what the champion meets with what it was made for, until SIGTERM. A second process stands by."""
    ours = settings()
    run_worker(DriftDetector(ours), ours)


if __name__ == "__main__":
    main(prog_name="python -m workers.drift_detector")
