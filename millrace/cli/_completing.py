"""What a shell offers for arguments; asks no server, so that it answers at once."""

from __future__ import annotations

import click


def complete_topic(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of declared topics and of their dead-letter topics."""
    del ctx, param
    from millrace.topics import ALL

    names = (name for topic in ALL for name in ((topic.name, topic.dlq) if topic.dead_letters else (topic.name,)))
    return [name for name in names if name.startswith(incomplete)]


def complete_buried(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of topics that have a dead-letter topic beside them."""
    del ctx, param
    from millrace.topics import ALL

    return [topic.name for topic in ALL if topic.dead_letters and topic.name.startswith(incomplete)]
