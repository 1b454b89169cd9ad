"""``millrace users``: a user's features, and their erasure."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from millrace.cli._output import print_table, quiet_logs, when
from millrace.settings import settings


@click.group()
def command() -> None:
    """Show a user's features, or forget the user."""


@command.command()
@click.argument("user_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(user_id: str, as_json: bool) -> None:
    """Show what is known of a user; exit status 1 if nothing is."""
    from millrace.events.build import now_ms
    from millrace.events.rules import check_id
    from millrace.features.as_json import user_as_dict
    from millrace.features.store import FeatureStore
    from millrace.features.user_state import USER_FIELDS, decode_user, user_key

    check_id("user_id", user_id)
    values = settings()
    store = FeatureStore(values.redis)
    store.connect()
    state = decode_user(store.ask("HMGET", user_key(user_id), *USER_FIELDS))
    store.close()
    if state is None:
        click.echo(f"nothing is known of user {user_id!r}", err=True)
        sys.exit(1)
    shown = user_as_dict(user_id, state, now_ms(), values.features.user_half_life_ms)
    if as_json:
        click.echo(json.dumps(shown))
    else:
        _print(shown)


@command.command()
@click.argument("user_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def forget(user_id: str, as_json: bool) -> None:
    """Erase a user's features: publishes a FORGET event and waits for the broker's acknowledgement."""
    from millrace.client import EventProducer

    quiet_logs()
    with EventProducer(settings().kafka) as events:
        event_id = events.forget(user_id)
    if as_json:
        click.echo(json.dumps({"user_id": user_id, "event_id": event_id}))
    else:
        click.echo(f"acknowledged: the feature updater erases user {user_id!r} (event {event_id})")


def _print(shown: dict[str, Any]) -> None:
    known = shown["known"]
    facts = [
        ("user", shown["user_id"]),
        ("segment", shown["segment"]),
        ("counts", ", ".join(f"{name} {count}" for name, count in shown["counts"].items())),
        ("purchase value", f"{shown['purchase_value']:g}"),
        ("first seen", when(shown["first_seen_ms"])),
        ("last seen", when(shown["last_seen_ms"])),
        ("known up to", f"{known['topic']}[{known['partition']}]@{known['offset']}"),
        ("disliked", ", ".join(shown["disliked"])),
    ]
    for name, value in facts:
        if value:
            click.echo(f"{name:<15} {value}")
    click.echo()
    print_table(("recent item", "type", "at"), [(r["item_id"], r["type"], when(r["at_ms"])) for r in shown["recent"]])
