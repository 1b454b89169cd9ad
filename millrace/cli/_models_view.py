"""Sheets of versions for people: tables, intervals of gates and weights drawn in characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from millrace.cli._drawing import bar, ends, fitting_scale, interval
from millrace.cli._output import print_table, when

if TYPE_CHECKING:
    from millrace.registry.sheet import Sheet

WEIGHTS_MAX = 12
"""Columns of the model that are drawn, those with the largest weights (or the largest differences)."""
_BAR = 31
# Metrics of a run that say how good the version was, and what they are called for people.
_LOSS, _CALIBRATION = "log_loss_", "calibration_error_"


def print_one(sheet: Sheet) -> None:
    """A version: what it is, where it comes from, what the gates said, how good it was, its weights."""
    click.echo(_headline(sheet))
    for event in sheet["events"]:
        before = f", before: version {event['previous_version']}" if event["previous_version"] else ""
        at = f", as of checkpoint {event['checkpoint_id']}" if event["checkpoint_id"] else ""
        reason = f": {event['reason']}" if event["reason"] else ""
        click.echo(f"  {when(event['at_ms'])}  {event['what']}{before}{at}{reason}")
    for line in (*_of_window(sheet), *_of_lineage(sheet)):
        click.echo(line)
    _print_gates(sheet)
    _print_quality([sheet])
    if sheet["run"]:
        for plot in sheet["run"]["plots"]:
            click.echo(f"plot: {plot} of run {sheet['run']['run_id']}")
    if sheet["weights"]:
        click.echo("weights as registered, of the standardised columns, in log-odds:")
        for line in drawn_weights(sheet["weights"]):
            click.echo(line)
    if sheet["tags"]:
        click.echo("other tags: " + ", ".join(f"{tag}={value}" for tag, value in sorted(sheet["tags"].items())))


def print_two(before: Sheet, after: Sheet, gain: Mapping[str, float] | None) -> None:
    """Two versions beside each other, and what the second gains over the first if that was measured."""
    for sheet in (before, after):
        click.echo(_headline(sheet))
    rows = [(name, one, other) for name, one, other in _beside(before, after) if (one, other) != ("", "")]
    print_table(("", f"version {before['version']}", f"version {after['version']}"), rows)
    _print_quality([before, after])
    click.echo(_verdict(before, after, gain))
    if gain is not None:
        for line in _drawn_gains({"all": (gain["gain"], gain["low"], gain["high"])}):
            click.echo(line)
    if before["weights"] and after["weights"]:
        click.echo(f"weights that differ most (▸ is version {after['version']} less version {before['version']}):")
        for line in drawn_differences(before["weights"], after["weights"]):
            click.echo(line)


def drawn_weights(weights: Mapping[str, float]) -> Iterator[str]:
    """A bar for each of the largest, and how many more there are."""
    shown = dict(list(weights.items())[:WEIGHTS_MAX])
    scale, label = max(map(abs, shown.values()), default=0.0), max(map(len, shown), default=0)
    for name, weight in shown.items():
        yield f"  {name:<{label}} {bar(weight, scale, _BAR)} {weight:+.4f}"
    left = [weight for name, weight in weights.items() if name not in shown]
    if left:
        yield f"  and {len(left)} smaller ones, {left.count(0.0)} of them 0"


def drawn_differences(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[str]:
    """A bar for each column whose weights differ most; one that a version does not have counts as 0."""
    both = {name: (before.get(name, 0.0), after.get(name, 0.0)) for name in (*before, *after)}
    shown = sorted(both.items(), key=lambda one: -abs(one[1][1] - one[1][0]))[:WEIGHTS_MAX]
    scale = max((abs(new - old) for _, (old, new) in shown), default=0.0)
    label = max((len(name) for name, _ in shown), default=0)
    for name, (old, new) in shown:
        if new != old:
            yield f"  {name:<{label}} {bar(new - old, scale, _BAR)} {old:+.4f} ▸ {new:+.4f}"
    if scale == 0:
        yield "  none: all weights are the same"


def measured_gain(before: Sheet, after: Sheet) -> Mapping[str, float] | None:
    """What the second was measured to gain over the first, nats a slot: only if it was trained beside it."""
    if after["lineage"]["trained_beside"] != before["version"] or not after["gates"]:
        return None
    gate = next((one for one in after["gates"]["gates"] if one["name"] == "better"), None)
    if gate is None or f"champion {before['version']}" not in gate["reason"]:
        return None
    return {name: gate["figures"][name] for name in ("gain", "low", "high", "slots") if name in gate["figures"]}


def _headline(sheet: Sheet) -> str:
    aliases = f", {', '.join('@' + alias for alias in sheet['aliases'])}" if sheet["aliases"] else ""
    since = f", registered {when(sheet['registered_at_ms'])}" if sheet["registered_at_ms"] else ""
    reason = f": {sheet['reason']}" if sheet["reason"] else ""
    return f"version {sheet['version']} of model {sheet['model']!r}: {sheet['state']}{aliases}{since}{reason}"


def _of_window(sheet: Sheet) -> Iterator[str]:
    window = sheet["window"]
    if window is None:
        if sheet["gates"] is None and sheet["run"] is not None:
            yield "it was not trained: fixed weights, which learn from its first outcome on"
        return
    records = sum(end - start for start, end in window["offsets"].values())
    known = [f"{window[name]:,} {name}" for name in ("outcomes", "examples", "clicks") if name in window]
    time = f", {when(window['from_ms'])} to {when(window['to_ms'])}" if window["from_ms"] and window["to_ms"] else ""
    yield f"trained on {', '.join(known) or 'outcomes'}{time} ({records:,} offsets of topic {window['topic_id']})"
    if window["since_ms"]:
        yield f"for a world that changed at {when(window['since_ms'])}: chosen and judged by what was served since"


def _of_lineage(sheet: Sheet) -> Iterator[str]:
    lineage = sheet["lineage"]
    made = [
        f"code {lineage['code_version']}" if lineage["code_version"] else "",
        f"features {lineage['feature_schema']}" if lineage["feature_schema"] else "",
        f"run {lineage['run_id']}" if lineage["run_id"] else "",
        f"sha256 {lineage['sha256'][:12]}…" if lineage["sha256"] else "",
    ]
    if any(made):
        yield "made by " + ", ".join(part for part in made if part)
    said = [
        f"trained beside version {lineage['trained_beside']}" if lineage["trained_beside"] else "",
        f"took the place of version {', '.join(lineage['replaced'])}" if lineage["replaced"] else "",
        f"gave way to version {', '.join(lineage['replaced_by'])}" if lineage["replaced_by"] else "",
        f"{len(lineage['checkpoints'])} checkpoints of what it learned since" if lineage["checkpoints"] else "",
    ]
    if any(said):
        yield "; ".join(part for part in said if part)


def _print_gates(sheet: Sheet) -> None:
    gates = sheet["gates"]
    if gates is None:
        return
    click.echo("gates: " + ("passed" if gates["passed"] else "failed: it never serves"))
    rows = [("" if gate["passed"] else "✗", gate["name"], gate["reason"]) for gate in gates["gates"]]
    print_table(("", "gate", "reason"), rows)
    gains = {}
    for gate in gates["gates"]:
        figures = gate["figures"]
        if gate["name"] == "better" and {"gain", "low", "high"} <= figures.keys():
            gains["all"] = (figures["gain"], figures["low"], figures["high"])
        if gate["name"] == "segments":
            for name in (each.removesuffix(".gain") for each in figures if each.endswith(".gain")):
                gains[name] = (figures[f"{name}.gain"], figures[f"{name}.low"], figures[f"{name}.high"])
    for line in _drawn_gains(gains):
        click.echo(line)


def _drawn_gains(gains: Mapping[str, tuple[float, float, float]]) -> Iterator[str]:
    """Log loss saved, in thousandths of a nat a slot, with its bounds."""
    finite = {name: each for name, each in gains.items() if all(abs(number) < float("inf") for number in each)}
    if not finite:
        return
    yield "log loss saved, thousandths of a nat a slot (right is better):"
    scale, label = fitting_scale(each for three in finite.values() for each in three), max(map(len, finite))
    for name, (gain, low, high) in finite.items():
        line = interval(low, gain, high, scale)
        yield f"  {name:<{label}} {line} {gain * 1e3:+.2f} ({low * 1e3:+.2f} to {high * 1e3:+.2f})"
    yield f"  {'':<{label}} {ends(f'{-scale * 1e3:g}', f'+{scale * 1e3:g}')}"


def _print_quality(sheets: Sequence[Sheet]) -> None:
    """Log loss and calibration on the newest part of each one's window."""
    rows = []
    for sheet in sheets:
        metrics = sheet["run"]["metrics"] if sheet["run"] else {}
        for name in (each.removeprefix(_LOSS) for each in metrics if each.startswith(_LOSS)):
            if f"{_CALIBRATION}{name}" in metrics:
                who = f"version {sheet['version']}" if name == "new" else f"{name}, beside version {sheet['version']}"
                rows.append((who, f"{metrics[_LOSS + name]:.5f}", f"{metrics[_CALIBRATION + name]:.4f}"))
    if rows:
        print_table(("on its newest slots", "log loss", "calibration error"), rows)


def _beside(before: Sheet, after: Sheet) -> Iterator[tuple[str, str, str]]:
    def both(name: str, told: object, other: object) -> tuple[str, str, str]:
        return name, "" if told is None else str(told), "" if other is None else str(other)

    for name in ("code_version", "feature_schema", "trained_beside", "run_id"):
        yield both(name.replace("_", " "), before["lineage"][name], after["lineage"][name])
    for name in ("outcomes", "examples", "clicks"):
        one, other = ((sheet["window"] or {}).get(name) for sheet in (before, after))
        yield both(name, *(f"{number:,}" if number is not None else None for number in (one, other)))
    for end in ("from_ms", "to_ms", "since_ms"):
        one, other = ((sheet["window"] or {}).get(end) for sheet in (before, after))
        yield both(f"trained {end.removesuffix('_ms')}", *(when(ms) if ms else None for ms in (one, other)))
    yield both("gates", *((sheet["gates"] or {}).get("verdict") for sheet in (before, after)))


def _verdict(before: Sheet, after: Sheet, gain: Mapping[str, float] | None) -> str:
    one, other = before["version"], after["version"]
    if gain is None:
        return (
            "never measured on the same slots: their figures cannot be compared. "
            f"`millrace experiments evaluate {other}` says what it would earn beside the champion"
        )
    if gain["low"] > 0:
        return f"version {other} was surely better than version {one} on {gain['slots']:,.0f} slots when it was trained"
    if gain["high"] < 0:
        return f"version {other} was surely worse than version {one} on {gain['slots']:,.0f} slots when it was trained"
    return f"which of the two is better was not known when version {other} was trained"
