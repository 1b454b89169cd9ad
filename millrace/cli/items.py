"""``millrace items``: an item's features."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from millrace.cli._output import print_table, when
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.v1.item_pb2 import ItemState

NEIGHBOURS_SHOWN = 10


@click.group()
def command() -> None:
    """Show an item's features."""


@command.command()
@click.argument("item_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(item_id: str, as_json: bool) -> None:
    """Show what is known of an item (catalogue and statistics); exit status 1 if nothing is."""
    from millrace.events.rules import check_id
    from millrace.features.item_state import CATALOGUE_FIELDS, ITEM_FIELDS, catalogue_key, decode_item, item_key
    from millrace.features.store import FeatureStore

    check_id("item_id", item_id)
    values = settings()
    store = FeatureStore(values.redis)
    store.connect()
    statistics, entry = store.ask_all(
        [("HMGET", item_key(item_id), *ITEM_FIELDS), ("HMGET", catalogue_key(item_id), *CATALOGUE_FIELDS)]
    )
    store.close()
    state = decode_item(item_id, statistics, entry, values.features)
    if state is None:
        click.echo(f"nothing is known of item {item_id!r}", err=True)
        sys.exit(1)
    if as_json:
        from google.protobuf.json_format import MessageToDict

        click.echo(json.dumps(MessageToDict(state, preserving_proto_field_name=True)))
    else:
        _print(state)


def _print(state: ItemState) -> None:
    facts = [("item", state.item_id)]
    entry = state.catalogue
    if state.HasField("catalogue"):
        facts += [
            ("title", entry.title),
            ("category", entry.category),
            ("tags", ", ".join(entry.tags)),
            ("price", f"{entry.price:g}" if entry.HasField("price") else ""),
            ("available", "no" if entry.HasField("available") and not entry.available else "yes"),
            ("published", when(entry.published_at_ms) if entry.published_at_ms else ""),
        ]
    if state.last_seen_ms:
        counts = state.counts
        facts += [
            ("counts", ", ".join(f"{field.name} {count}" for field, count in counts.ListFields())),
            ("mean rating", f"{state.rating_sum / counts.ratings:.2f}" if counts.ratings else ""),
            ("earned", f"{state.purchase_value:g}" if state.purchase_value else ""),
            ("popularity", f"short {state.popularity_short.value:.3f}, long {state.popularity_long.value:.3f}"),
            ("first seen", when(state.first_seen_ms)),
            ("last seen", when(state.last_seen_ms)),
        ]
    for name, value in facts:
        if value:
            click.echo(f"{name:<15} {value}")
    neighbours = list(zip(state.neighbours.item_ids, state.neighbours.weights, strict=True))
    if neighbours:
        click.echo(f"\n{min(len(neighbours), NEIGHBOURS_SHOWN)} of {len(neighbours)} neighbours")
        print_table(("item", "weight"), [(item, f"{weight:.4f}") for item, weight in neighbours[:NEIGHBOURS_SHOWN]])
