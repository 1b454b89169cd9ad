"""Outcomes of a window become slots; what cannot be learned from is counted, and too much of it ends the job."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from millrace.errors import InvalidField, MillraceError
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.settings import TrainingSettings
from millrace.training.slots import CLICKED, SlotFile, examples, merge, read_slots
from millrace.v1.outcome_pb2 import Outcome

log = structlog.stdlib.get_logger(__name__)

_NUMBER = re.compile(r"[0-9]+")


class NotEnough(MillraceError):
    """There is too little to learn from."""


class UnusableData(MillraceError):
    """What there is to learn from is not what it should be."""


class Intake:
    """Outcomes of the partitions of a topic, in any order between partitions. A context manager.

    Parameters
    ----------
    folder
        Where the slots of each partition are kept.

    Attributes
    ----------
    outcomes, examples, clicks
        Outcomes taken; the slots among theirs that teach; and the clicked ones of these.
    refused
        Outcomes that break a rule, by reason. The learner refuses them too.
    foreign
        Outcomes of other features, by the name of the schema: from before the code was changed.
    """

    def __init__(self, folder: Path, settings: TrainingSettings) -> None:
        self._folder, self._settings = folder, settings
        self._files: dict[int, SlotFile] = {}
        self._newest_ms: dict[int, int] = {}
        self._slots = 0
        self.outcomes = self.examples = self.clicks = 0
        self.refused: Counter[str] = Counter()
        self.foreign: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()

    def take(self, outcome: Outcome, partition: int, appended_ms: int) -> None:
        """Take the next outcome of a partition, appended at this time (Unix milliseconds).

        Raises
        ------
        UnusableData
            There are more slots than the disk is to hold.
        """
        # A broker's clock may be set back.
        appended_ms = self._newest_ms[partition] = max(self._newest_ms.get(partition, 0), appended_ms)
        try:
            read = read_slots(outcome, FEATURE_SCHEMA, len(FEATURE_NAMES), appended_ms)
        except InvalidField as error:
            if error.field == "impression.feature_schema":
                self.foreign[outcome.impression.feature_schema] += 1
            else:
                self.refuse(error)
            return
        taught = examples(read)
        self.outcomes += 1
        self.examples += len(taught)
        self.clicks += int((taught["label"] == CLICKED).sum())
        if partition not in self._files:
            self._files[partition] = SlotFile(self._folder / f"partition-{partition}", len(FEATURE_NAMES))
        self._files[partition].append(read)
        self._slots += len(read)
        if self._slots > self._settings.slots_max:
            raise UnusableData(
                f"more than {self._settings.slots_max:,} slots in the window: make it shorter "
                "(MILLRACE_TRAINING_WINDOW_MS), or allow for more of them on the disk (MILLRACE_TRAINING_SLOTS_MAX)"
            )

    def in_order(self, into: SlotFile) -> None:
        """Append all slots to a file, in the order in which the broker got their outcomes."""
        merge([file for _, file in sorted(self._files.items())], into)

    def refuse(self, reason: InvalidField) -> None:
        """Count an outcome that breaks a rule."""
        # Not the value: each may be another one.
        self.refused[f"{_NUMBER.sub('N', reason.field)} must be {reason.allowed}"] += 1

    def check(self) -> None:
        """Raises NotEnough or UnusableData unless there is enough of the right kind."""
        refused, all_ = self.refused.total(), self.outcomes + self.refused.total()
        if refused:
            reason, _ = self.refused.most_common(1)[0]
            log.warning("outcomes refused", refused=refused, of=all_, for_example=reason)
            if refused > self._settings.refused_max * all_:
                raise UnusableData(
                    f"{refused:,} of {all_:,} outcomes break a rule, more than {self._settings.refused_max:.1%} "
                    f"(MILLRACE_TRAINING_REFUSED_MAX); most often: {reason}"
                )
        if self.foreign:
            log.warning("outcomes of other features passed over", of_schema=dict(self.foreign))
        least = self._settings.outcomes_min
        if self.outcomes >= least:
            return
        if self.foreign:
            name, count = self.foreign.most_common(1)[0]
            raise UnusableData(
                f"{self.outcomes:,} outcomes have the features of this code ({FEATURE_SCHEMA}), and {least:,} are "
                f"needed (MILLRACE_TRAINING_OUTCOMES_MIN); {count:,} have those of {name!r}: wait for more new ones"
            )
        raise NotEnough(
            f"{self.outcomes:,} outcomes, and {least:,} are needed (MILLRACE_TRAINING_OUTCOMES_MIN): wait for more, or "
            "make the window longer (MILLRACE_TRAINING_WINDOW_MS)"
        )
