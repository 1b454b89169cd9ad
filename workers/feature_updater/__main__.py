"""``python -m workers.feature_updater``."""

from __future__ import annotations

import click

from millrace.errors import MillraceError
from millrace.features.store import FeatureStore
from millrace.features.topic_guard import accept_topics
from millrace.settings import settings
from millrace.stream.admin import topic_ids
from millrace.stream.process import run_worker
from workers.feature_updater.worker import FeatureUpdater


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--accept-topics",
    is_flag=True,
    help="Go on with topics that were made anew: features stay, positions in the old topics are dropped. Then exit.",
)
def main(accept_topics: bool) -> None:
    """Turn interactions and catalogue entries into features, until SIGTERM."""
    ours = settings()
    try:
        if accept_topics:
            _accept_topics()
            return
        worker = FeatureUpdater(ours.redis, ours.features)
    except MillraceError as error:
        raise click.ClickException(str(error)) from error
    run_worker(worker, ours)


def _accept_topics() -> None:
    ours = settings()
    store = FeatureStore(ours.redis)
    store.connect()
    renewed = accept_topics(store, topic_ids(ours.kafka, [topic.name for topic in FeatureUpdater.topics]))
    store.close()
    click.echo(f"positions dropped for {', '.join(renewed)}" if renewed else "no topic was made anew")


if __name__ == "__main__":
    main(prog_name="python -m workers.feature_updater")
