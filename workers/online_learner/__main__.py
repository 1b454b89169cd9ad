"""``python -m workers.online_learner``."""

from __future__ import annotations

import click

from millrace.settings import settings
from millrace.stream.process import run_worker
from workers.online_learner.worker import OnlineLearner


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Learn the champion's parameters from every outcome, until SIGTERM. A second process stands by."""
    ours = settings()
    run_worker(OnlineLearner(ours), ours)


if __name__ == "__main__":
    main(prog_name="python -m workers.online_learner")
