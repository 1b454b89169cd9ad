"""How far a retraining is: a fold over the events of one model, as the ledger of which it is a part.

    collecting ─► training ─► evaluating ───────────────► challenger ─► promoted | rejected
        │            │            └──────► shadow ───────────┴───────────────────►┘
        └────────────┴────────────┴───────────┴──────────────┴───────► failed

**collecting**: outcomes of a world that changed come in, until they are enough. **training**: the job runs.
**evaluating**: its version passed the gates, and what is known of it is measured before it gets traffic. **shadow**:
that was too little, or no experiment can be had, and its predictions are compared with the champion's. **challenger**:
an experiment shows it to a part of the users. A version that fails a gate, the measurement, the comparison or the
experiment is *rejected*; *failed* is a retraining without a verdict: its job failed, or somebody cancelled it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from millrace.v1.common_pb2 import Position
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

STARTED = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_STARTED
TRAINS = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_TRAINS
ENDED = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_ENDED
DECLINED = ModelEventType.MODEL_EVENT_TYPE_SIGNAL_DECLINED
SHADOWS = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_SHADOWS
REGISTERED = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
CHALLENGER = ModelEventType.MODEL_EVENT_TYPE_CHALLENGER
PROMOTED = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
REJECTED = ModelEventType.MODEL_EVENT_TYPE_REJECTED

DECLINED_KEPT = 10
"""Signals that started nothing, the newest, for people to read."""


class State(StrEnum):
    """Where a retraining is; the last three are ends."""

    COLLECTING = "collecting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SHADOW = "shadow"
    CHALLENGER = "challenger"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"


_ENDS = (State.PROMOTED, State.REJECTED, State.FAILED)
_STEPS = {
    TRAINS: State.TRAINING,
    REGISTERED: State.EVALUATING,
    SHADOWS: State.SHADOW,
    CHALLENGER: State.CHALLENGER,
    REJECTED: State.REJECTED,
}


@dataclass(frozen=True, slots=True)
class Retraining:
    """One retraining.

    Attributes
    ----------
    retraining_id
        Of the event that started it; names its job, too.
    reason
        Why it began.
    signal_id, command_id
        What started it; both empty if it was time.
    since_ms
        What was served since then is of the changed world, Unix milliseconds; 0 if no drift started it.
    started_at_ms, changed_at_ms
        Of its beginning and of its last step, Unix milliseconds.
    version
        What it made; empty before.
    note
        What the last step says of itself.
    champion
        The version that a comparison in the shadow is with, the newest one; empty if there is none.
    starts
        Of that comparison: the first outcome of each partition.
    """

    retraining_id: str
    reason: str
    signal_id: str
    command_id: str
    started_at_ms: int
    changed_at_ms: int
    state: State = State.COLLECTING
    version: str = ""
    note: str = ""
    champion: str = ""
    starts: tuple[Position, ...] = ()
    since_ms: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it is under way."""
        return self.state not in _ENDS


@dataclass(slots=True)
class Retrainings:
    """What the events of one model say of its retrainings; each event is to be given once.

    Attributes
    ----------
    newest
        The one that is under way, else the last one; None before the first.
    count
        How many there were, the newest included.
    in_vain
        Retrainings in a row that signals started and that led to no promotion, the newest included.
    declined
        SIGNAL_DECLINED events, the newest last.
    """

    newest: Retraining | None = None
    count: int = 0
    in_vain: int = 0
    declined: list[ModelEvent] = field(default_factory=list)

    @property
    def under_way(self) -> Retraining | None:
        """The one that has not ended."""
        return self.newest if self.newest is not None and self.newest.is_open else None

    @property
    def challenger(self) -> str:
        """The version that an experiment shows; empty if none does."""
        return self.newest.version if self.newest is not None and self.newest.state == State.CHALLENGER else ""

    def apply(self, event: ModelEvent) -> None:
        """Take the next event of the model."""
        if event.type == STARTED:
            self.count += 1
            self.in_vain = self.in_vain + 1 if event.signal_id else 0
            self.newest = Retraining(
                retraining_id=event.event_id,
                reason=event.reason,
                signal_id=event.signal_id,
                command_id=event.command_id,
                started_at_ms=event.at_ms,
                changed_at_ms=event.at_ms,
                since_ms=event.since_ms,
            )
        elif event.type == DECLINED:
            self.declined = [*self.declined, event][-DECLINED_KEPT:]
        elif event.type == PROMOTED:
            self.in_vain = 0
        if self.newest is not None and self.newest.is_open:
            self.newest = _after(self.newest, event)


def _after(present: Retraining, event: ModelEvent) -> Retraining:
    """The retraining under way after an event that may be about it."""
    ours = event.retraining_id == present.retraining_id
    about = bool(present.version) and event.model_version == present.version
    if event.type == ENDED and ours:
        state = State.FAILED
    elif event.type == PROMOTED and about:
        state = State.PROMOTED
    elif event.type in _STEPS and (ours or (event.type == REJECTED and about)):
        state = _STEPS[event.type]
    else:
        return present
    version = event.model_version or present.version
    after = replace(present, state=state, version=version, changed_at_ms=event.at_ms, note=event.reason)
    if event.type == SHADOWS:
        after = replace(after, champion=event.previous_version, starts=tuple(event.starts))
    return after
