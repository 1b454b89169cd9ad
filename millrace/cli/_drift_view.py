"""What the drift detector found, for people: effects drawn against their limits, histograms before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from millrace.cli._drawing import columns
from millrace.cli._output import print_table, when

SHOWN = 10
"""Features that moved most."""
SIGNALS_SHOWN = 5
"""Signals that are over."""
_LIMIT_AT, _GAUGE = 10, 20
"""A gauge's limit stands after so many of its characters."""


def print_status(status: Mapping[str, Any], everything: bool) -> None:
    """Everything, the most urgent first; words where there is nothing yet."""
    if not status["watched"]:
        click.echo(f"model {status['model']!r} is not watched: {status['problem']}")
        if status["version"] is None:
            click.echo("is it running? `millrace run` starts it, and so does `python -m workers.drift_detector`")
        else:
            click.echo(
                "a version from `python -m workers.retrain_orchestrator.train` brings a reference, and is watched"
            )
    else:
        newest = f", outcomes served up to {when(status['newest_ms'])}" if status["newest_ms"] else ", no outcome yet"
        a_day = status["false_alarms_per_day"]
        click.echo(
            f"version {status['version']} of model {status['model']!r} is watched{newest}; false alarms of a feature: "
            f"one in {1 / a_day:,.0f} days"
        )
    holding = [signal for signal in status["signals"] if signal["holds"]]
    over = [signal for signal in status["signals"] if not signal["holds"]]
    for signal in holding:
        _print_signal(signal)
    if status["watched"]:
        if not holding:
            click.echo("nothing drifts")
        _print_look(status, everything)
        _print_measures(status["measures"])
    if over:
        click.echo(f"over ({len(over)}):")
        for signal in over[:SIGNALS_SHOWN]:
            click.echo(f"  {_said(signal)}, until {when(signal['at_ms'])}")


def gauge(effect: float | None, limit: float | None) -> str:
    """How large an effect is; the limit is in the middle."""
    if effect is None or not limit:
        return ""
    filled = min(_GAUGE, round(abs(effect) / limit * _LIMIT_AT))
    drawn = "█" * filled + "·" * (_GAUGE - filled)
    return f"{drawn[:_LIMIT_AT]}│{drawn[_LIMIT_AT:]}"


def _print_signal(signal: Mapping[str, Any]) -> None:
    click.echo(_said(signal) + f", said last {when(signal['at_ms'])}")
    if signal["channel"] != "performance":
        _print_findings(signal["evidence"])


def _said(signal: Mapping[str, Any]) -> str:
    names = [one["name"] for one in signal["evidence"]]
    what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    where = f" of segment {signal['segment']}" if signal["segment"] else ""
    effects = [one["effect_size"] for one in signal["evidence"] if one["effect_size"] is not None]
    if signal["channel"] == "performance":
        effect = f" by {effects[0]:+.0%}" if effects else ""
        return (
            f"labels changed: {what}{where}{effect}, since {when(signal['first_at_ms'])} (version {signal['version']})"
        )
    kind = "features" if signal["channel"] == "input" else "scores"
    return f"{kind} moved: {what}{where}, since {when(signal['first_at_ms'])} (version {signal['version']})"


def _print_look(status: Mapping[str, Any], everything: bool) -> None:
    look = status["look"]
    if look is None:
        click.echo(
            f"features and scores: no look yet; one takes {status['hours_of_a_look']} whole hours since the version "
            f"serves, and {status['hours']} were seen"
        )
        return
    findings = look["findings"]
    alarms = sum(one["alarm"] for one in findings)
    click.echo(
        f"features and scores, {when(look['from_ms'])} to {when(look['to_ms'])}: {alarms} of {len(findings)} tests "
        "alarm (│ is the size below which none does)"
    )
    shown = findings if everything else findings[:SHOWN]
    _print_findings(shown)
    if len(shown) < len(findings):
        click.echo(f"  and {len(findings) - len(shown)} that moved less (--all)")


def _print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            "✗" if one["alarm"] else "",
            one["name"],
            one["method"],
            gauge(one["effect_size"], one["effect_min"]),
            _figure(one["effect_size"]),
            _figure(one["evidence"]),
            _figure(one["model_weight"]),
            columns(one["before"]["counts"]),
            columns(one["after"]["counts"]),
        )
        for one in findings
    ]
    print_table(("", "name", "test", "moved", "by", "p-value", "weight", "before", "after"), rows)


def _print_measures(measures: Sequence[Mapping[str, Any]]) -> None:
    if not measures:
        return
    click.echo("labels, since their last alarm (│ is an alarm):")
    rows = [
        (
            one["name"],
            one["segment"] or "all",
            f"{one['outcomes']:,}",
            _figure(one["before"]),
            _figure(one["after"]) if one["outcomes"] else "",
            gauge(one["evidence"], 1.0),
            _figure(one["evidence"]),
        )
        for one in measures
    ]
    print_table(("measure", "users", "outcomes", "reference", "now", "evidence", ""), rows)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
