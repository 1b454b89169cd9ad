"""``python -m workers.outcome_joiner``."""

from __future__ import annotations

import click

from millrace.settings import settings
from millrace.stream.process import run_worker
from workers.outcome_joiner.worker import OutcomeJoiner


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Join what was shown with what users did, as labelled outcomes, until SIGTERM."""
    ours = settings()
    run_worker(OutcomeJoiner(ours), ours)


if __name__ == "__main__":
    main(prog_name="python -m workers.outcome_joiner")
