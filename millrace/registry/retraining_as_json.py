"""How retraining stands, for JSON: the same of the command line and of the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millrace.enums import name_of
from millrace.registry.challenge import definition_of, room
from millrace.registry.ledger import Ledger
from millrace.registry.retraining import Retraining, State
from millrace.registry.triggers import describe, has_waited, look, may_train, next_by_schedule_ms
from millrace.settings import DAY_MS, HOUR_MS, RetrainSettings
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.model_pb2 import ModelEvent

IDLE = "idle"


def retraining_as_dict(one: Retraining) -> dict[str, object]:
    """One retraining; what it does not have is null."""
    return {
        "retraining_id": one.retraining_id,
        "state": one.state,
        "reason": one.reason,
        "signal_id": one.signal_id or None,
        "since_ms": one.since_ms or None,
        "command_id": one.command_id or None,
        "version": one.version or None,
        "note": one.note or None,
        "in_shadow_of": one.champion or None,
        "started_at_ms": one.started_at_ms,
        "changed_at_ms": one.changed_at_ms,
    }


def started_as_dict(event: ModelEvent) -> dict[str, object]:
    """What a command to retrain, or to cancel, led to."""
    return {"retraining_id": event.retraining_id, "at_ms": event.at_ms, "reason": event.reason}


def status_as_dict(
    ledger: Ledger,
    signals: Sequence[DriftSignal],
    experiments: Iterable[Experiment],
    settings: RetrainSettings,
    now_ms: int,
) -> dict[str, object]:
    """How retraining of a model stands.

    Parameters
    ----------
    signals
        Those that hold.
    settings
        Those of the orchestrator, if they are to tell what it will do.
    now_ms
        Unix milliseconds.
    """
    present, newest = ledger.retrainings.under_way, ledger.retrainings.newest
    return {
        "model": ledger.model_name,
        "state": present.state if present is not None else IDLE,
        "champion": ledger.champion or None,
        "newest": None if newest is None else retraining_as_dict(newest),
        "count": ledger.retrainings.count,
        "in_vain": ledger.retrainings.in_vain,
        "waits": [*_waits(ledger, present, experiments, settings, now_ms)]
        if present is not None
        else [*look(ledger, signals, settings, now_ms).waits],
        "next_by_schedule_ms": next_by_schedule_ms(ledger, settings),
        "holding": [_signal_as_dict(signal) for signal in signals],
        "declined": [
            {"signal_id": event.signal_id, "version": event.model_version, "at_ms": event.at_ms, "reason": event.reason}
            for event in reversed(ledger.retrainings.declined)
        ],
    }


def _waits(
    ledger: Ledger, present: Retraining, experiments: Iterable[Experiment], settings: RetrainSettings, now_ms: int
) -> Iterable[str]:
    """What the retraining under way waits for."""
    if present.state == State.COLLECTING and not has_waited(present, settings, now_ms):
        minutes = (present.started_at_ms + settings.collect_ms - now_ms) / 60_000
        yield f"outcomes of the changed world come in for another {minutes:.0f} min"
    elif present.state == State.COLLECTING and not may_train(present, settings, now_ms):
        hours = (present.started_at_ms + settings.collect_max_ms - now_ms) / HOUR_MS
        yield f"outcomes of the changed world come in until there are enough, for at most another {hours:.0f} h"
    elif present.state in (State.EVALUATING, State.SHADOW):
        if present.state == State.SHADOW:
            days = (present.changed_at_ms + settings.shadow_max_ms - now_ms) / DAY_MS
            yield (
                f"what version {present.version} predicts is compared with version {present.champion}, for at most "
                f"another {max(days, 0):.1f} days"
            )
        definition = definition_of(ledger.model_name, present, settings.challenged_share)
        problem = room(definition, experiments) if settings.experiments != "off" else ""
        if problem:
            yield f"experiment {definition.experiment_id}: {problem}"


def _signal_as_dict(signal: DriftSignal) -> dict[str, object]:
    return {
        "signal_id": signal.signal_id,
        "channel": name_of(DriftChannel.DESCRIPTOR, signal.channel),
        "version": signal.model_version,
        "about": describe(signal),
        "first_at_ms": signal.first_at_ms,
        "changed_at_ms": signal.changed_at_ms or None,
        "at_ms": signal.at_ms,
    }
