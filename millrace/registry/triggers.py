"""When a retraining begins, and why none does: decided from values only.

Three things start one: somebody asks, labels have drifted for a while, or it is time. Signals of inputs and scores are
answered once, with the reason why they start none: that features moved says next to nothing about harm (design,
section 8). Everything else that is in the way goes away by itself, and is looked at again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from millrace.enums import name_of
from millrace.registry.ledger import Ledger
from millrace.registry.retraining import DECLINED, STARTED, Retraining, State
from millrace.settings import HOUR_MS, RetrainSettings
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.model_pb2 import ModelEvent

# Any fixed value, another one than those of the other steps.
_NAMESPACE = uuid.UUID("3f9c7a0e-7d55-4c0b-9a53-5c1b8e0d4f21")
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at everything says.

    Attributes
    ----------
    event
        The next event to write; None if there is none.
    waits
        Why drift that holds and the schedule start nothing now, for people.
    """

    event: ModelEvent | None
    waits: Sequence[str] = ()


def look(ledger: Ledger, signals: Iterable[DriftSignal], settings: RetrainSettings, now_ms: int) -> Look:
    """Look at what holds.

    Parameters
    ----------
    signals
        Those that hold, of any version.
    now_ms
        Unix milliseconds.
    """
    waits = []
    for signal in signals:
        if signal.model_name != ledger.model_name or signal.model_version != ledger.champion:
            continue
        if signal.channel != DriftChannel.DRIFT_CHANNEL_PERFORMANCE:
            declined = _declined(ledger, signal, now_ms)
            if declined is not None:
                return Look(declined)
            continue
        problem = next(_against(ledger, signal, settings, now_ms), "")
        if not problem:
            return Look(_started(ledger, f"drift: {describe(signal)}", now_ms, signal))
        waits.append(f"drift ({describe(signal)}): {problem}")
    due_ms = next_by_schedule_ms(ledger, settings)
    if due_ms is not None and ledger.retrainings.under_way is None:
        if now_ms >= due_ms:
            every = settings.interval_hours
            return Look(_started(ledger, f"{every} hours have gone by since the last one", now_ms))
        waits.append(f"schedule: in {_span(due_ms - now_ms)}")
    return Look(None, waits)


def next_by_schedule_ms(ledger: Ledger, settings: RetrainSettings) -> int | None:
    """When it is time by the schedule, Unix milliseconds; None if there is none, or no version yet."""
    if not settings.interval_hours or not ledger.versions:
        return None
    newest = ledger.retrainings.newest
    last_ms = newest.started_at_ms if newest is not None else next(iter(ledger.versions.values())).at_ms
    return last_ms + settings.interval_hours * HOUR_MS


def against_another(ledger: Ledger) -> str:
    """Why no retraining can begin, whoever asks: there is one at a time; empty if one can."""
    present = ledger.retrainings.under_way
    return "" if present is None else f"a retraining is under way already: {phrase(present)}"


def may_train(present: Retraining, settings: RetrainSettings, now_ms: int, enough: bool = False) -> bool:
    """Whether the training job may run: after drift, once some time has gone by and enough of the changed world came.

    Parameters
    ----------
    enough
        Whether what came since the change is known to be enough to learn it and to judge by it. After
        ``collect_max_ms`` the job runs without, and its gate says how much there was.
    """
    if present.state != State.COLLECTING or not has_waited(present, settings, now_ms):
        return False
    return enough or not present.since_ms or now_ms >= present.started_at_ms + settings.collect_max_ms


def has_waited(present: Retraining, settings: RetrainSettings, now_ms: int) -> bool:
    """Whether the least time of collecting is over; without drift nothing has to be waited for."""
    return now_ms >= present.started_at_ms + (settings.collect_ms if present.signal_id else 0)


def changed_ms(signal: DriftSignal) -> int:
    """When the world changed, by a signal, Unix milliseconds: at the latest, it had when that was found."""
    return signal.changed_at_ms or signal.first_at_ms


def describe(signal: DriftSignal) -> str:
    """What a signal is about, in a few words."""
    names = [one.name for one in signal.evidence[:_NAMED_MAX]]
    more = len(signal.evidence) - len(names)
    segment = f" of {signal.segment} users" if signal.segment else ""
    channel = name_of(DriftChannel.DESCRIPTOR, signal.channel)
    return f"{channel}: {', '.join(names) or 'no evidence'}{f' and {more} more' if more else ''}{segment}"


def phrase(present: Retraining) -> str:
    """Where a retraining is, in a few words."""
    version = f", version {present.version}" if present.version else ""
    return f"{present.state}{version} ({present.reason or 'no reason given'})"


def _against(ledger: Ledger, signal: DriftSignal, settings: RetrainSettings, now_ms: int) -> Iterator[str]:
    """What keeps labels that drifted from starting a retraining."""
    held_ms = signal.at_ms - signal.first_at_ms
    newest = ledger.retrainings.newest
    another = against_another(ledger)
    if another:
        yield another
    if held_ms < settings.debounce_ms:
        yield f"it has to hold for {_span(settings.debounce_ms)}, and has for {_span(held_ms)}"
    if newest is not None and now_ms < newest.changed_at_ms + settings.cool_down_ms:
        yield f"cool-down for another {_span(newest.changed_at_ms + settings.cool_down_ms - now_ms)}"
    if ledger.retrainings.in_vain >= settings.in_vain_max:
        yield (
            f"{ledger.retrainings.in_vain} retrainings in a row that drift started led to no promotion; the next one "
            "is for the schedule, or for somebody to start"
        )


def _started(ledger: Ledger, reason: str, now_ms: int, signal: DriftSignal | None = None) -> ModelEvent:
    # Only one is under way: its number names it, in whatever process it is decided.
    event_id = _id(ledger, f"retraining/{ledger.retrainings.count + 1}")
    return ModelEvent(
        event_id=event_id,
        retraining_id=event_id,
        model_name=ledger.model_name,
        type=STARTED,
        at_ms=now_ms,
        reason=reason,
        signal_id=signal.signal_id if signal is not None else "",
        since_ms=changed_ms(signal) if signal is not None else 0,
    )


def _declined(ledger: Ledger, signal: DriftSignal, now_ms: int) -> ModelEvent | None:
    """The answer to a signal that never starts a retraining; None if it stands already."""
    event_id = _id(ledger, f"signal/{signal.signal_id}")
    if ledger.took(event_id):
        return None
    return ModelEvent(
        event_id=event_id,
        model_name=ledger.model_name,
        model_version=signal.model_version,
        type=DECLINED,
        at_ms=now_ms,
        reason=f"{describe(signal)}: {_why_not(signal)}",
        signal_id=signal.signal_id,
    )


def _why_not(signal: DriftSignal) -> str:
    if signal.channel == DriftChannel.DRIFT_CHANNEL_PREDICTION:
        return "scores alone start no retraining; labels say whether it does harm"
    used = sum(one.model_weight != 0 for one in signal.evidence)
    if not used:
        return "the model uses none of these features"
    return f"the model uses {used} of these features; labels say whether it does harm"


def _id(ledger: Ledger, step: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{ledger.model_name}\0{step}"))


def _span(milliseconds: int) -> str:
    minutes = max(milliseconds, 0) / 60_000
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
