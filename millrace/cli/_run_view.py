"""How ``millrace run`` shows its pipeline: a live screen, plain lines, a summary, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from deploy.embedded.snapshot import Snapshot

COLOURS = {"ready": "green", "starting": "yellow", "dead": "red"}


def screen(snapshot: Snapshot, addresses: Mapping[str, str]) -> RenderableType:
    """Everything at a glance, for a terminal."""
    return Group(
        Text(headline(snapshot), style="bold"),
        Text(learning(snapshot)),
        *(Text(about) for about in trial(snapshot)),
        Text(),
        _processes(snapshot),
        Text(),
        _shown(snapshot),
        Text(),
        _addresses(addresses),
        Text("\nCtrl-C stops everything", style="dim"),
    )


def headline(snapshot: Snapshot) -> str:
    """The figures of the stream in one line."""
    return f"{snapshot.events_per_s:,.0f} events/s   {snapshot.events:,} events   {_freshness(snapshot)}"


def learning(snapshot: Snapshot) -> str:
    """The figures of learning, and of clicks if shoppers are simulated, in one line."""
    learning = snapshot.learning
    model = f"model {learning.model_version}" if learning.model_version else "no model"
    if learning.sequence:
        model += f", update {learning.epoch}.{learning.sequence}"
    parts = [f"{learning.outcomes_per_s:,.0f} outcomes/s", f"{learning.learned:,} learned", model]
    if (shop := snapshot.shop) is not None:
        parts.append(f"click-through {_percent(shop.click_through_recent)} (in total {_percent(shop.click_through)})")
        parts.append(f"conversion {_percent(shop.conversion)}")
    return "   ".join(parts)


def trial(snapshot: Snapshot) -> Iterator[str]:
    """What the experiment says, beside the truth: a line for each arm that is compared."""
    view = snapshot.trial
    if view is None:
        return
    if not view.arms:
        yield f"experiment {view.experiment_id}: {view.state}{f' ({view.problem})' if view.problem else ''}"
    for arm in view.arms:
        if arm.against:
            told = "nothing estimated yet"
            if arm.effect is not None and arm.low is not None and arm.high is not None:
                told = f"estimated {arm.effect:+.0%} ({arm.low:+.0%} to {arm.high:+.0%})"
            truth = "unknown" if arm.true_effect is None else f"{arm.true_effect:+.0%}"
            yield f"experiment {view.experiment_id}: {arm.name} against {arm.against} {told}, in truth {truth}"
    if view.in_words:
        yield f"experiment {view.experiment_id}: {view.state}; {'; '.join(view.in_words)}"


def line(snapshot: Snapshot) -> str:
    """One line for a log: the figures, and who is not well."""
    lags = " ".join(f"{process.name}={process.lag}" for process in snapshot.processes if process.lag is not None)
    troubles = [
        f"{process.name} {process.state}{f' ({process.problem})' if process.problem else ''}"
        for process in snapshot.processes
        if process.state != "ready"
    ]
    return (
        f"{headline(snapshot)}   {learning(snapshot)}   lag {lags or 'unknown'}   {', '.join(troubles) or 'all ready'}"
    )


def summary(snapshot: Snapshot, addresses: Mapping[str, str]) -> dict[str, Any]:
    """The last snapshot as plain values, for ``--json``."""
    return {
        "healthy": snapshot.healthy,
        "duration_s": round(snapshot.at_s, 1),
        "events": snapshot.events,
        "events_per_s": round(snapshot.events / snapshot.at_s, 1),
        "freshness_ms": None
        if snapshot.freshness_ms is None
        else dict(zip(("p50", "p99"), (round(value, 1) for value in snapshot.freshness_ms), strict=True)),
        "processes": [asdict(process) for process in snapshot.processes],
        "learning": asdict(snapshot.learning) | {"outcomes_per_s": round(snapshot.learning.outcomes_per_s, 1)},
        "shop": None if snapshot.shop is None else asdict(snapshot.shop),
        "shown": None if snapshot.shown is None else asdict(snapshot.shown),
        "trial": None if snapshot.trial is None else asdict(snapshot.trial),
        "addresses": dict(addresses),
    }


def _freshness(snapshot: Snapshot) -> str:
    if snapshot.freshness_ms is None:
        return "no events yet" if not snapshot.events else "no new events"
    return "features fresh after {:.0f} ms (p50), {:.0f} ms (p99)".format(*snapshot.freshness_ms)


def _processes(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("process", "state", "pid", "lag", "metrics", "waits for"):
        table.add_column(column, justify="right" if column in ("pid", "lag") else "left")
    for process in snapshot.processes:
        table.add_row(
            process.name,
            Text(process.state, style=COLOURS[process.state]),
            str(process.pid or ""),
            "" if process.lag is None else f"{process.lag:,}",
            f"http://{process.metrics}/metrics" if process.metrics else "",
            Text(process.problem),
        )
    return table


def _shown(snapshot: Snapshot) -> RenderableType:
    answer = snapshot.shown
    if answer is None:
        return Text("no recommendations yet")
    origin = f"model {answer.model_version}" if answer.model_version else "no model"
    if answer.fallback != "none":
        origin += f", {answer.fallback.replace('_', ' ')}"
    table = Table(box=None, pad_edge=False)
    for column in ("item", "score", "source"):
        table.add_column(column)
    for item in answer.items:
        table.add_row(Text(item.item_id), f"{item.score:.4f}", ", ".join(item.sources))
    return Group(Text(f"{answer.user_id} was just shown ({origin})", style="italic"), table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _addresses(addresses: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, address in addresses.items():
        table.add_row(name, address)
    return table
