"""Live learning on trial: the experiment that every run with simulated shoppers takes part in. Pure.

The champion as it learns, and what is popular, are compared with the champion as it was registered. It is started once
for a stack and goes on over all runs, until it is decided; the shoppers know the truth about each arm.
"""

from __future__ import annotations

from collections.abc import Mapping

from deploy.embedded.snapshot import EXPERIMENT_ID, TrialArm, TrialView
from millrace.enums import name_of
from millrace.experiments.definition import control
from millrace.experiments.outlook import in_words, relative_intervals
from millrace.registry.asking import new_command
from millrace.registry.ledger import Ledger
from millrace.simulation.truth import Truth, true_effects
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Arm, Experiment, ExperimentDefinition, ExperimentState

FROZEN, LIVE, POPULAR = "frozen", "live", "popular"
TRAFFIC = 0.5
"""The other half of the shoppers is left for experiments that people start while they watch."""
MINIMUM_USERS = 100
"""Of 2,000 shoppers, a sixth has each arm, and many of them come rarely."""
RATE, LIFT = 0.06, 0.3
"""About what shoppers click of what they look at, and a difference that a quarter of an hour finds."""


def definition(model_name: str, champion: str) -> ExperimentDefinition:
    """What is compared; ``champion`` is the version that stands still in one arm."""
    arms = [
        Arm(name=FROZEN, model_version=champion, settings={"parameters": "registered"}, control=True),
        Arm(name=LIVE),
        Arm(name=POPULAR, settings={"ranking": "popular"}),
    ]
    for arm in arms:
        arm.share = 1 / len(arms)
    return ExperimentDefinition(
        experiment_id=EXPERIMENT_ID,
        description="the champion as it learns, and what is popular, against the champion as it was registered",
        model_name=model_name,
        traffic=TRAFFIC,
        arms=arms,
        minimum_users=MINIMUM_USERS,
        expected_rate=RATE,
        expected_lift=LIFT,
    )


def next_command(record: Experiment | None, ledger: Ledger) -> Command | None:
    """What has to be asked for next; None if nothing, or while the model has no champion.

    Ids are the same whenever it is asked: the tracker acts on each once.
    """
    command = new_command("millrace run", "simulated shoppers, whose true rates are known")
    if record is None:
        if not ledger.champion:
            return None
        command.define_experiment.definition.CopyFrom(definition(ledger.model_name, ledger.champion))
    elif record.state == ExperimentState.EXPERIMENT_STATE_DRAFT:
        command.start_experiment.experiment_id = EXPERIMENT_ID
    else:
        return None
    command.command_id = f"{EXPERIMENT_ID} {command.WhichOneof('action')}"
    return command


def view(record: Experiment | None, truths: Mapping[str, Truth], problem: str) -> TrialView:
    """What is known, beside the truth."""
    if record is None:
        return TrialView(EXPERIMENT_ID, "not started", problem=problem)
    against = control(record.definition).name
    known, effects = relative_intervals(record), true_effects(truths, against)
    arms = []
    for figures in record.figures:
        name = figures.name
        truth = truths.get(name, Truth())
        effect, low, high = known.get(name, (None, None, None))
        arms.append(
            TrialArm(
                name,
                against if name != against else "",
                figures.users,
                figures.slots,
                figures.clicks / figures.slots if figures.slots else None,
                truth.rate if truth.slots else None,
                effect,
                low,
                high,
                effects.get(name),
            )
        )
    state = name_of(ExperimentState.DESCRIPTOR, record.state)
    return TrialView(EXPERIMENT_ID, state, tuple(arms), tuple(in_words(record)), problem)
