"""Clicks of Globo.com, asked for before they happen as ``millrace replay --ask`` does, with news peaks as they came.

A part of the sessions is taken, and of the clicks that continue a session some are asked for. What was clicked and had
been shown is a click on the answer; what was not shown leaves the answer without one. There are no experiments: what
people clicked does not follow from what is shown here. A version that passes its gates is promoted at once.

After each retraining the version and what it would replace go through the slots of the next hours, both predicting
before they learn (``millrace.training.measure``): that is what it was worth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from zlib import crc32

import numpy as np

from benchmarks.drift_loop.control import Control, Rule
from benchmarks.drift_loop.retraining import Fixed, slot_file
from benchmarks.drift_loop.serving import Serving
from millrace.errors import InvalidField
from millrace.evaluation.sessions import Sessions
from millrace.events.sources import Source
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import LearnerState
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.registry.retraining import REGISTERED, REJECTED
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, RetrainSettings, Settings
from millrace.simulation.catalogue import Floats
from millrace.training.measure import Contender, Gain, Line, measure
from millrace.training.slots import Slots, read_slots
from millrace.v1.drift_pb2 import DriftChannel
from millrace.v1.interaction_pb2 import Interaction

K = 10
SESSIONS, ASKED = 8, 4
"""Every so-manieth session is taken, and every so-manieth click that continues one is asked for."""
FOLLOWING_MS = 6 * HOUR_MS
"""Of slots after a retraining by which it is judged: as long as no other may begin."""
ITEMS_MAX = 60_000
PERFORMANCE = DriftChannel.DRIFT_CHANNEL_PERFORMANCE


@dataclass(frozen=True)
class Policy:
    """When a version is trained.

    Attributes
    ----------
    learns
        Whether what serves learns online.
    retrains
        ``rule``, ``always`` (as soon as one may begin again) or ``never``.
    """

    learns: bool
    retrains: str


@dataclass
class Trial:
    """A retraining and what followed.

    Attributes
    ----------
    passed
        Whether the version passed its gates, and was promoted.
    gain
        Log loss saved in the hours after it, against going on without; None if the clicks ended before.
    """

    at_ms: int
    passed: bool
    new: LearnerState
    old: LearnerState
    slots: list[Slots] = field(default_factory=list)
    gain: Gain | None = None


@dataclass
class Replayed:
    """What came of a policy.

    Attributes
    ----------
    asked, hit
        Answers, and those with the clicked item, by hour since the first click: float64[hours].
    labels, values
        Signals of labels; of features and scores.
    """

    asked: Floats
    hit: Floats
    trials: list[Trial] = field(default_factory=list)
    labels: int = 0
    values: int = 0


def clicks(source: Source, sessions: int) -> Iterator[Interaction]:
    """The clicks of every so-manieth session, by a hash of its id."""
    columns = source.columns
    for place, (_, row) in enumerate(source.read()):
        if isinstance(row, InvalidField) or crc32(str(row[str(columns.session)]).encode()) % sessions:
            continue
        yield columns.interaction(row, f"{source.name}:{place}")


class Replay:
    """Goes through the clicks with one policy."""

    def __init__(self, policy: Policy, folder: Path, hours: int) -> None:
        settings = Settings()
        settings.retrain = RetrainSettings(interval_hours=0)
        if policy.retrains == "always":
            # There is no change of which enough could come.
            settings.retrain = RetrainSettings(interval_hours=0, in_vain_max=10**6, collect_max_ms=0)
        self._settings, self._policy, self._folder = settings, policy, folder
        self._serving = Serving(settings, ITEMS_MAX, np.random.default_rng(1), policy.learns)
        rule = Rule(always=policy.retrains == "always", experiments=False)
        self._control = Control(settings, self._serving, folder, rule, acts=False)
        self._sessions = Sessions(settings.features.session_gap_ms)
        self._numbers = count()
        self._began_ms = self._look_at = 0
        self._seen = 0
        self.found = Replayed(np.zeros(hours), np.zeros(hours))

    def run(self, events: Iterator[Interaction], known_ms: int, watched_ms: int) -> Replayed:
        """Take the clicks; the first version is trained ``watched_ms`` after the first of them, on what came since
        ``known_ms`` after it.
        """
        watched = False
        for event in events:
            now_ms = event.occurred_at_ms
            if not self._began_ms:
                self._began_ms, self._look_at = now_ms, now_ms
                self._control.begin(now_ms)
            if now_ms >= self._look_at:
                self._pass(now_ms)
            if not watched and now_ms >= self._began_ms + watched_ms:
                window = self._settings.training.model_copy(update={"window_ms": watched_ms - known_ms})
                kept, self._settings.training = self._settings.training, window
                self._control.retrain_now(now_ms)
                self._settings.training = kept
                watched, self._control.acts = True, self._policy.retrains != "never"
            self._meet(event, now_ms)
        for trial in self.found.trials:
            trial.slots.clear()
        heard = [signal.channel for _, signal in self._control.heard if not signal.signal_id.startswith("always")]
        self.found.labels = sum(channel == PERFORMANCE for channel in heard)
        self.found.values = len(heard) - self.found.labels
        return self.found

    def _meet(self, event: Interaction, now_ms: int) -> None:
        """Ask for the click if it is its turn, and take it."""
        if self._sessions.continues(event) and not next(self._numbers) % ASKED:
            request_id = f"r-{event.event_id}"
            shown = self._serving.recommend(event.user_id, K, request_id, event.session_id, now_ms)
            hour = (now_ms - self._began_ms) // HOUR_MS
            self.found.asked[hour] += 1
            if event.item_id in shown:
                event.request_id = request_id
                self.found.hit[hour] += 1
        self._serving.take(event, now_ms)

    def _pass(self, now_ms: int) -> None:
        """A minute has gone by."""
        self._look_at = now_ms + MINUTE_MS
        outcomes, self._serving.outcomes = self._serving.outcomes, []
        for trial in self.found.trials:
            if trial.gain is None:
                trial.slots += [read_slots(one, FEATURE_SCHEMA, len(FEATURE_NAMES), now_ms) for one in outcomes]
                if now_ms >= trial.at_ms + FOLLOWING_MS:
                    self._judge(trial)
        control, serving = self._control, self._serving
        control.take(outcomes, now_ms)
        before = serving.state(serving.champion) if control.ledger.retrainings.under_way else None
        written = len(control.events)
        control.look(now_ms)
        for event in control.events[written:]:
            if event.type in (REGISTERED, REJECTED) and before is not None:
                new = control.trained[event.model_version].state
                self.found.trials.append(Trial(now_ms, event.type == REGISTERED, new, before))

    def _judge(self, trial: Trial) -> None:
        """What the version was worth in the hours that followed."""
        contenders: dict[str, Contender] = {}
        for name, state in (("new", trial.new), ("old", trial.old)):
            line = OnlineRanker(replace(state))
            contenders[name] = Line(line) if self._policy.learns else Fixed(line.model())
        with slot_file(trial.slots, self._folder / f"following-{trial.at_ms}") as slots:
            trial.gain = measure(contenders, slots, 0, len(slots)).gain("new", "old")
        trial.slots.clear()


def run(
    policy: Policy,
    source: Source,
    known_ms: int = DAY_MS // 4,
    watched_ms: int = DAY_MS,
    sessions: int = SESSIONS,
    hours: int = 10 * 24 + 1,
) -> Replayed:
    """Go through a source with a policy."""
    with tempfile.TemporaryDirectory() as folder:
        return Replay(policy, Path(folder), hours).run(clicks(source, sessions), known_ms, watched_ms)
