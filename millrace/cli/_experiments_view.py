"""Experiments for people: tables, intervals drawn in characters, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from millrace.cli._drawing import ends, fitting_scale, interval
from millrace.cli._experiments_gate import print_gate
from millrace.cli._output import print_table, when
from millrace.enums import name_of

if TYPE_CHECKING:
    from millrace.simulation.truth import Truth
    from millrace.v1.experiment_pb2 import Arm, Experiment


def state(experiment: Experiment) -> str:
    """draft, running or stopped."""
    from millrace.v1.experiment_pb2 import ExperimentState

    return name_of(ExperimentState.DESCRIPTOR, experiment.state)


def decision(experiment: Experiment) -> str:
    """What the rule says, for people."""
    from millrace.v1.experiment_pb2 import DecisionKind

    kind = name_of(DecisionKind.DESCRIPTOR, experiment.decision.kind).replace("_", " ")
    return "" if kind == "unspecified" else kind


def what(arm: Arm) -> str:
    """What an arm is."""
    settings = dict(arm.settings)
    frozen = settings.pop("parameters", "") == "registered"
    named = f"{'frozen' if frozen else 'version'} {arm.model_version}" if arm.model_version else "champion"
    if "checkpoint" in settings:
        named = f"checkpoint {settings.pop('checkpoint')}"
    if settings.pop("ranking", "") == "popular":
        named = "popular"
    return ", ".join((named, *(f"{key}={value}" for key, value in sorted(settings.items()))))


def print_list(experiments: list[Experiment]) -> None:
    """One line for each."""
    rows = [
        (
            one.definition.experiment_id,
            state(one),
            when(one.started_at_ms) if one.started_at_ms else "",
            sum(figures.users for figures in one.figures),
            decision(one),
            one.decision.reason,
        )
        for one in experiments
    ]
    print_table(("experiment", "state", "started", "users", "decision", "reason"), rows)


def print_one(experiment: Experiment, truths: Mapping[str, Truth]) -> None:
    """Everything: figures, intervals, what may be done, and the truth about arms where shoppers are simulated."""
    from millrace.experiments.life import ENDING
    from millrace.experiments.outlook import in_words

    definition = experiment.definition
    since = f" since {when(experiment.started_at_ms)}" if experiment.started_at_ms else ""
    click.echo(f"{definition.experiment_id}: {state(experiment)}{since}, {definition.traffic:.0%} of all users")
    if definition.description:
        click.echo(definition.description)
    for sentence in allocated(experiment):
        click.echo(sentence)
    for gate in experiment.gates:
        print_gate(gate, started=True)
    by_name = {figures.name: figures for figures in experiment.figures}
    rows = []
    for arm in definition.arms:
        figures = by_name.get(arm.name)
        share = figures.weight if figures is not None else arm.share
        row: list[object] = [f"{arm.name}{' (control)' if arm.control else ''}", what(arm), f"{share:.0%}"]
        if figures is not None:
            rate = figures.clicks / figures.slots if figures.slots else 0.0
            row += [f"{figures.users:,}", f"{figures.slots:,}", f"{rate:.2%}", f"{figures.conversions:,}"]
            row += [f"{figures.conversion_value:,.2f}", figures.failures, _latency(list(figures.serve_counts))]
        rows.append(row)
    columns = ("arm", "what", "share", "users", "slots", "clicked", "purchases", "value", "failed", "p50 / p95 ms")
    print_table(columns, [[*row, *[""] * (len(columns) - len(row))] for row in rows])
    for line in drawn(experiment, true_effects(experiment, truths)):
        click.echo(line)
    for sentence in in_words(experiment):
        click.echo(sentence)
    for sentence in (*of_what_else(experiment), *in_truth(experiment, truths)):
        click.echo(sentence)
    if experiment.stopped_at_ms:
        how = decision(experiment) if experiment.decision.kind in ENDING else "by command"
        click.echo(f"ended {when(experiment.stopped_at_ms)}: {how}")


def allocated(experiment: Experiment) -> Iterator[str]:
    """How shares move, if they do."""
    from millrace.experiments.definition import is_thompson
    from millrace.settings import MINUTE_MS
    from millrace.v1.experiment_pb2 import Reward

    definition = experiment.definition
    if is_thompson(definition):
        by = "money for an answer" if definition.reward == Reward.REWARD_VALUE else "clicks of a slot"
        now = f"; period {len(experiment.periods)}" if experiment.periods else ""
        since = f" since {when(experiment.periods[-1].from_ms)}" if experiment.periods else ""
        periods = f"periods of {definition.period_ms / MINUTE_MS:g} min"
        yield f"Thompson sampling by {by}, {periods}, {definition.floor:.0%} for an arm at least{now}{since}"


def true_effects(experiment: Experiment, truths: Mapping[str, Truth]) -> Mapping[str, float]:
    """Of each challenger of which the truth is known: its relative difference to the control."""
    from millrace.experiments.definition import control
    from millrace.simulation.truth import true_effects

    return true_effects(truths, control(experiment.definition).name)


def of_what_else(experiment: Experiment) -> Iterator[str]:
    """A sentence on each guardrail of each challenger, on how many items arms show, and on earlier activity."""
    from millrace.experiments.outlook import explained, items_shown, on_guardrails

    for arm, rails in on_guardrails(experiment).items():
        for name, (worse, surely, borne) in rails.items():
            than = f"surely by {surely:.3g}" if surely > 0 else "not surely"
            seen = f"worse by {worse:.3g}, {than}" if worse > 0 else "not worse"
            yield f"{arm}, {name}: {seen}; {borne:.3g} would be borne"
    share = explained(experiment)
    if share is not None:
        yield f"what users did before the start explains {share:.1%} of the variance of a slot's clicks"
    if shown := items_shown(experiment):
        counts = ", ".join(f"{name} {items:,.1f}" for name, items in shown.items())
        yield f"as varied as so many items shown alike: {counts}"


def in_truth(experiment: Experiment, truths: Mapping[str, Truth]) -> Iterator[str]:
    """A sentence on each challenger of which the truth is known."""
    from millrace.experiments.definition import control

    against = control(experiment.definition).name
    for name, effect in true_effects(experiment, truths).items():
        yield (
            f"in truth {name} {effect:+.1%}: {truths[name].rate:.2%} of slots, and {truths[against].rate:.2%} of "
            f"{against}'s, on average over the simulated shoppers' chances"
        )


def drawn(experiment: Experiment, truths: Mapping[str, float]) -> Iterator[str]:
    """Intervals against the control, one line each, with a scale below; a diamond where the truth is known to be."""
    from millrace.experiments.outlook import relative_intervals

    known = relative_intervals(experiment)
    if not known:
        return
    scale = fitting_scale(end for _, low, high in known.values() for end in (low, high))
    label = max(len(name) for name in known)
    for name, (effect, low, high) in known.items():
        line = interval(low, effect, high, scale, truth=truths.get(name))
        yield f"{name:<{label}} {line} {effect:+.1%} ({low:+.1%} to {high:+.1%})"
    yield f"{'':<{label}} {ends(f'{-scale:.0%}', f'+{scale:.0%}')}"


def as_dict(experiment: Experiment, truths: Mapping[str, Truth]) -> dict[str, object]:
    """For JSON, with the truth beside it where shoppers are simulated."""
    from millrace.experiments.as_json import experiment_as_dict

    effects = true_effects(experiment, truths)
    return experiment_as_dict(experiment) | {
        "truth": {
            name: {"pages": truth.pages, "rate": truth.rate, "effect": effects.get(name)}
            for name, truth in truths.items()
        }
    }


def _latency(counts: list[int]) -> str:
    """Percentiles, each the upper end of its place."""
    from millrace.experiments.tally import SERVE_BOUNDS

    total = sum(counts)
    if not total:
        return ""
    found = []
    for share in (0.5, 0.95):
        seen = 0
        for place, count in enumerate(counts):
            seen += count
            if seen >= share * total:
                found.append(f"{SERVE_BOUNDS[min(place, len(SERVE_BOUNDS) - 1)] / 1_000:.1f}")
                break
    return " / ".join(found)
