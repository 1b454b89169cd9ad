"""What ``millrace experiments create`` asks for, as options, and the definition that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._experiment_arms import WHAT, read_arms

if TYPE_CHECKING:
    from millrace.v1.experiment_pb2 import Arm, ExperimentDefinition

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
YEAR_HOURS = 366 * 24.0
CHALLENGED = 0.1
"""Of all users, those who get another arm than the control by default."""
PERIOD_MINUTES, FLOOR = 60.0, 0.1
"""Of Thompson sampling; the floor is half of an equal share if that is less."""


def within(most: float) -> Callable[[click.Context, click.Parameter, float | None], float | None]:
    """For numbers that are scaled before they are checked: 0 to ``most``, and no NaN."""

    def check(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
        if value is not None and not 0 <= value <= most:
            raise click.BadParameter(f"{value:g} is not within 0 and {most:g}", context, parameter)
        return value

    return check


def _stated(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """For numbers whose 0 would be taken for none given."""
    if not value:
        raise click.BadParameter("0 is no such number; leave it out for the default", context, parameter)
    return value


_OPTIONS = (
    click.option(
        "--arm",
        "arms",
        multiple=True,
        required=True,
        metavar="NAME=WHAT[,SETTING=VALUE]",
        help=f"An arm, the control first. WHAT: {WHAT}.",
    ),
    click.option(
        "--share",
        "shares",
        multiple=True,
        metavar="NAME=SHARE",
        help="Of an arm; with --thompson in the first period [default: all equal].",
    ),
    click.option(
        "--thompson",
        type=click.Choice(["clicks", "value"]),
        help="Shares follow what arms bring: clicks of a slot, or money for an answer [default: shares stay].",
    ),
    click.option(
        "--period-minutes",
        type=float,
        callback=within(60 * YEAR_HOURS),
        help="Shares stay so long, and a user's arm does [default: 60; with --thompson].",
    ),
    click.option(
        "--floor", type=float, help="Least share of an arm [default: .1, or half of an equal one; with --thompson]."
    ),
    click.option(
        "--traffic",
        type=float,
        help="Share of all users that takes part [default: a tenth of all get another arm than the control].",
    ),
    click.option("--layer", default="", help="Experiments of one layer share no user [default: default]."),
    click.option("--description", default="", help="For people."),
    click.option(
        "--alpha",
        default=0.05,
        show_default=True,
        callback=_stated,
        help="Probability of a false promotion, over its whole life.",
    ),
    click.option(
        "--minimum-users",
        type=click.IntRange(1, 10**12),
        default=200,
        show_default=True,
        help="In each arm, before anything is decided.",
    ),
    click.option(
        "--minimum-hours",
        default=0.0,
        callback=within(YEAR_HOURS),
        help="Before an arm is promoted or rejected [default: 0].",
    ),
    click.option(
        "--window-hours",
        default=24.0,
        show_default=True,
        callback=within(YEAR_HOURS),
        help="Purchases count until so long after an answer.",
    ),
    click.option(
        "--rate",
        default=0.05,
        show_default=True,
        callback=_stated,
        help="Clicks of a slot that are expected of the control.",
    ),
    click.option(
        "--lift",
        default=0.1,
        show_default=True,
        callback=_stated,
        help="The smallest relative difference that should be found.",
    ),
    click.option(
        "--earlier-activity",
        is_flag=True,
        help="Take out of the clicks what users' activity before the start says of them: less is left to chance.",
    ),
    click.option("--worthwhile", default=0.0, help="Reject an arm that is surely not better by so much [default: 0]."),
    click.option(
        "--fallback-margin",
        default=0.0,
        help="Stop an arm that fails or falls back so much more often [default: never].",
    ),
    click.option("--slow-ms", default=0.0, callback=within(3_600_000), help="An answer that takes longer is slow."),
    click.option("--slow-margin", default=0.0, help="Stop an arm that is slow so much more often [default: never]."),
    click.option(
        "--coverage-margin",
        default=0.0,
        help="Stop an arm that shows fewer items than the control, by so much, relative [default: never].",
    ),
    click.option(
        "--click-floor",
        default=0.0,
        help="Stop an arm with fewer clicks of a slot, whatever its control has [default: never].",
    ),
    click.option("--model", help="Registered model [default: the one of the settings]."),
)


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of :class:`Wanted`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options as they were given; see their help."""

    arms: tuple[str, ...]
    shares: tuple[str, ...]
    thompson: str | None
    period_minutes: float | None
    floor: float | None
    traffic: float | None
    layer: str
    description: str
    alpha: float
    minimum_users: int
    minimum_hours: float
    window_hours: float
    rate: float
    lift: float
    earlier_activity: bool
    worthwhile: float
    fallback_margin: float
    slow_ms: float
    slow_margin: float
    coverage_margin: float
    click_floor: float
    model: str | None

    def definition(self, experiment: str, model_name: str) -> ExperimentDefinition:
        """The definition, not checked yet, of this model where none was given. Raises click.BadParameter."""
        from millrace.v1.experiment_pb2 import AllocationPolicy, ExperimentDefinition, Guardrails, Reward

        arms = read_arms(self.arms, self.shares)
        period_minutes, floor = self.period_minutes, self.floor
        if self.thompson is not None:
            period_minutes = PERIOD_MINUTES if period_minutes is None else period_minutes
            floor = min(FLOOR, 0.5 / len(self.arms)) if floor is None else floor
        return ExperimentDefinition(
            experiment_id=experiment,
            description=self.description,
            layer=self.layer,
            model_name=self.model or model_name,
            traffic=_usual_traffic(arms) if self.traffic is None else self.traffic,
            policy=AllocationPolicy.Value(f"ALLOCATION_POLICY_{'THOMPSON' if self.thompson else 'FIXED'}"),
            reward=Reward.Value(f"REWARD_{(self.thompson or 'unspecified').upper()}"),
            period_ms=round((period_minutes or 0.0) * MINUTE_MS),
            floor=floor or 0.0,
            arms=arms,
            alpha=self.alpha,
            minimum_users=self.minimum_users,
            minimum_duration_ms=round(self.minimum_hours * HOUR_MS),
            conversion_window_ms=round(self.window_hours * HOUR_MS),
            expected_rate=self.rate,
            expected_lift=self.lift,
            earlier_activity=self.earlier_activity,
            worthwhile=self.worthwhile,
            guardrails=Guardrails(
                fallback_margin=self.fallback_margin,
                slow_micros=round(self.slow_ms * 1_000),
                slow_margin=self.slow_margin,
                coverage_margin=self.coverage_margin,
                click_floor=self.click_floor,
            ),
        )


def _usual_traffic(arms: Sequence[Arm]) -> float:
    """Share of all users of whom ``CHALLENGED`` of all get a challenger; all users if that is not enough."""
    challengers = sum(arm.share for arm in arms if not arm.control)
    return round(CHALLENGED / challengers, 6) if challengers > CHALLENGED else 1.0
