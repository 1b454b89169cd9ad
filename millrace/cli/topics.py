"""``millrace topics``: make the topics, or look at them."""

from __future__ import annotations

import dataclasses
import json

import click

from millrace.cli._output import print_table, quiet_logs
from millrace.settings import DAY_MS, HOUR_MS, settings


@click.group()
def command() -> None:
    """Make or list the topics."""
    quiet_logs()


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def apply(as_json: bool) -> None:
    """Make missing topics and correct settings that drifted; harmless when repeated.

    A change of the number of partitions is refused: see the message for the way to do it.
    """
    from millrace.stream.admin import apply_topics

    applied = apply_topics(settings().kafka)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(topic) for topic in applied]))
    else:
        print_table(
            ("topic", "action", "changes"), [(topic.name, topic.action, ", ".join(topic.changes)) for topic in applied]
        )


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_topics(as_json: bool) -> None:
    """Show every topic: partitions, cleanup, retention, and how many records it holds (at most)."""
    from millrace.stream.admin import describe_topics

    topics = describe_topics(settings().kafka)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(topic) for topic in topics]))
        return
    print_table(
        ("topic", "partitions", "key", "cleanup", "kept", "records", "id"),
        [
            (
                topic.name,
                topic.partitions or "not made",
                topic.key,
                topic.cleanup,
                _kept(topic.cleanup, topic.retention_ms),
                topic.records,
                topic.topic_id,
            )
            for topic in topics
        ],
    )


def _kept(cleanup: str, retention_ms: int) -> str:
    if cleanup == "compact":
        return "newest of each key"
    if retention_ms < 0:
        return "for ever"
    if retention_ms % DAY_MS == 0:
        return f"{retention_ms // DAY_MS} days"
    return f"{retention_ms / HOUR_MS:g} hours"
