"""What has happened to a model's versions: a fold over topic ``model-events``, which is the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from millrace.registry.retraining import Retrainings
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

CHECKPOINTS_KEPT = 10
"""Checkpoints that a rollback can return to (design, section 6)."""

_REIGNS = (ModelEventType.MODEL_EVENT_TYPE_PROMOTED, ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK)


@dataclass(slots=True)
class Ledger:
    """The state of one model after the events that it was given.

    Taking an event twice changes nothing, so a reader may start again at any time. It grows with the number of
    versions and commands in the model's life (about 0.5 KB each), not with traffic.

    Attributes
    ----------
    versions
        REGISTERED event of each version, in the order in which they came.
    reign
        The event that made the present champion; None before the first.
    former
        Champions that a rollback can return to, the latest last. A promotion adds the champion that it
        replaces; a rollback takes its target off, so that the next one goes further back.
    refused
        REJECTED event of each version that failed a gate: it never stands among ``versions``, so that nobody can
        promote it or give it traffic.
    settled
        Command id -> the event that accepted or refused it.
    checkpoints
        Checkpoint id -> its event, of the last ``CHECKPOINTS_KEPT``, the newest last.
    retrainings
        How far retraining is.
    """

    model_name: str
    versions: dict[str, ModelEvent] = field(default_factory=dict)
    reign: ModelEvent | None = None
    former: tuple[str, ...] = ()
    refused: dict[str, ModelEvent] = field(default_factory=dict)
    settled: dict[str, ModelEvent] = field(default_factory=dict)
    checkpoints: dict[str, ModelEvent] = field(default_factory=dict)
    retrainings: Retrainings = field(default_factory=Retrainings)
    _taken: set[str] = field(default_factory=set)

    @property
    def champion(self) -> str:
        """The version that serves; empty before the first."""
        return self.reign.model_version if self.reign else ""

    def took(self, event_id: str) -> bool:
        """Whether an event (no checkpoint) is included."""
        return event_id in self._taken

    def apply(self, event: ModelEvent) -> None:
        """Take the next event of the topic; those of other models and those taken before change nothing."""
        kind = event.type
        if event.model_name != self.model_name or event.event_id in self._taken:
            return
        if kind == ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED:
            self._keep(event)
            return
        self._taken.add(event.event_id)
        self.retrainings.apply(event)
        if event.command_id:
            self.settled.setdefault(event.command_id, event)
        if kind == ModelEventType.MODEL_EVENT_TYPE_REGISTERED:
            self.versions.setdefault(event.model_version, event)
        elif kind == ModelEventType.MODEL_EVENT_TYPE_REJECTED and event.model_version not in self.versions:
            self.refused.setdefault(event.model_version, event)
        elif kind in _REIGNS:
            self.former = self._former_after(event)
            self.reign = event

    def unknown(self, version: str) -> str:
        """Why a version is not among ``versions``, for people."""
        if version in self.refused:
            return f"version {version} of model {self.model_name!r} failed a gate: {self.refused[version].reason}"
        known = ", ".join(self.versions) or "none yet"
        return f"model {self.model_name!r} has no version {version!r} (versions: {known})"

    def _keep(self, event: ModelEvent) -> None:
        """The learner's, many: they change neither versions nor champion, and old ones are forgotten.

        Epochs grow for ever, and sequences inside an epoch, so that one that was taken before is told by its place.
        """
        newest = next(reversed(self.checkpoints.values()), None)
        if newest is not None and _place(event) <= _place(newest):
            return
        self.checkpoints[event.checkpoint_id] = event
        if len(self.checkpoints) > CHECKPOINTS_KEPT:
            del self.checkpoints[next(iter(self.checkpoints))]

    def _former_after(self, event: ModelEvent) -> tuple[str, ...]:
        target = event.model_version
        if event.checkpoint_id and target == self.champion:
            return self.former
        if event.type == ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK and target in self.former:
            # Everything that reigned after the target was worse than it.
            latest = len(self.former) - 1 - self.former[::-1].index(target)
            return self.former[:latest]
        return (*self.former, self.champion) if self.champion else self.former


def _place(checkpoint: ModelEvent) -> tuple[float, float]:
    return checkpoint.figures.get("epoch", 0.0), checkpoint.figures.get("sequence", 0.0)


def fold(model_name: str, events: Iterable[ModelEvent]) -> Ledger:
    """The ledger after these events."""
    ledger = Ledger(model_name)
    for event in events:
        ledger.apply(event)
    return ledger
