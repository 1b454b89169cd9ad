"""What becomes of a version that passed the gates of its training: it is compared with the champion, and that ends.

    evaluating ── known, and not worse ─────────────────────────────► experiment, a tenth of the users
        └── too little known, or no experiments ──► shadow ─ better ─► experiment, a hundredth; without any: promoted

What is known is measured on answers in random order (``millrace.experiments.gate``), in the shadow again every hour: a
version that passes there gets its tenth, and one that is surely worse, by either, is rejected.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from google.protobuf.json_format import ParseDict

from millrace.experiments.gate import FAILED, PASSED, judge
from millrace.registry import challenge
from millrace.registry.retraining import CHALLENGER, PROMOTED, REJECTED, SHADOWS, Retraining, State
from millrace.registry.steps import RetrainingStep
from millrace.settings import DAY_MS, HOUR_MS, RetrainSettings
from millrace.v1.command_pb2 import Command
from millrace.v1.common_pb2 import Position
from millrace.v1.experiment_pb2 import Experiment, ExperimentDefinition, Gate, GateEvidence
from workers.retrain_orchestrator.errand import Errand

log = structlog.stdlib.get_logger(__name__)

MEASURE = ("-m", "workers.retrain_orchestrator.measure")
SHADOW = ("-m", "workers.retrain_orchestrator.shadow")
# As people's commands: one may get lost until the experiment runs.
_SEND_AGAIN_S = 5.0
# Later, after so large a part of the time that went by: some eighty times in two weeks.
_SENT_MAX = 10
# What was measured is of the champion's answers of a day; those of an hour more would not change the verdict.
_MEASURED_FOR_MS = HOUR_MS


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a contest sees and does outside of itself.

    Attributes
    ----------
    experiments
        The records of experiments that have come by now.
    send
        Puts a command into its topic, by the id of its experiment.
    ends
        Where the next outcome of each partition will stand.
    """

    experiments: Callable[[], Sequence[Experiment]]
    send: Callable[[str, Command], None]
    ends: Callable[[], Sequence[Position]]


class Asking:
    """Sends commands to the tracker, again and again until it has acted on them.

    Parameters
    ----------
    send
        See :class:`Surroundings`.
    """

    def __init__(self, send: Callable[[str, Command], None]) -> None:
        self._send = send
        self._ids: Sequence[str] = ()
        self._since = self._send_at = 0.0

    def ask(self, commands: Sequence[Command], experiment_id: str) -> float:
        """Send them, if it is time to; for how long they have been sent now, seconds."""
        now, ids = time.monotonic(), [command.command_id for command in commands]
        if ids != self._ids:
            self._ids, self._since, self._send_at = ids, now, now
        if now >= self._send_at:
            for command in commands:
                self._send(experiment_id, command)
            # They stand in the log, also for a tracker that comes tomorrow.
            waited = now - self._since
            self._send_at = now + max(_SEND_AGAIN_S, waited / _SENT_MAX)
        return now - self._since


class Contest:
    """Takes the version of one retraining after the other through it; for one thread at a time.

    Parameters
    ----------
    write
        Writes a step of a retraining, unless something else has happened to it meanwhile, or it has to wait; whether it
        stands.
    note
        Says why nothing happens.
    measure, shadow
        How the interpreter starts the jobs; their own arguments follow.
    """

    def __init__(
        self,
        settings: RetrainSettings,
        model_name: str,
        surroundings: Surroundings,
        write: Callable[[Retraining, RetrainingStep], bool],
        note: Callable[[str], None],
        measure: Sequence[str] = MEASURE,
        shadow: Sequence[str] = SHADOW,
    ) -> None:
        self._settings, self._model_name, self._around = settings, model_name, surroundings
        self._write, self._note = write, note
        self._measure, self._shadow = measure, shadow
        self._measuring, self._shadowing = Errand(), Errand()
        self._gate: Gate | None = None
        # What the comparison in the shadow has said, for people.
        self._found = ""
        self._asking, self._stopping = Asking(surroundings.send), Asking(surroundings.send)

    def step(self, present: Retraining, champion: str, now_ms: int) -> None:
        """Do what is open now; does not wait for jobs.

        Parameters
        ----------
        champion
            The version that serves.
        now_ms
            Unix milliseconds.

        Raises
        ------
        MillraceError
            Kafka failed, or this machine starts no process.
        """
        if present.state != State.SHADOW:
            self._shadowing.stop()
            self._found = ""
        if present.state not in (State.EVALUATING, State.SHADOW):
            self._measuring.stop()
        name = self._definition(present, known=True).experiment_id
        records = {one.definition.experiment_id: one for one in self._around.experiments()}
        record = records.get(name, Experiment())
        if present.state in (State.EVALUATING, State.SHADOW):
            if record.started_at_ms:
                self._write(present, RetrainingStep(CHALLENGER, f"experiment {name}{self._found}"))
            else:
                self._compare(present, record, champion, now_ms)
        elif present.state == State.CHALLENGER:
            self._await(present, record, now_ms)
        elif record.state == challenge.RUNNING:
            # Cancelled, or somebody promoted the version.
            self._asking.ask([challenge.stop(name, now_ms)], name)

    def stop_left_behind(self, newest: Retraining, now_ms: int) -> None:
        """See that no earlier retraining's experiment runs on: who promoted its version died before the tracker knew.

        Raises
        ------
        MillraceError
            Kafka failed.
        """
        name = self._definition(newest, known=True).experiment_id
        for other in challenge.left_behind(self._model_name, name, self._around.experiments())[:1]:
            self._stopping.ask([challenge.stop(other, now_ms)], other)

    def stand_by(self) -> bool:
        """No job is wanted here, now; whether none works any more."""
        # Both are told, whatever the first one says.
        return all([self._measuring.stop(), self._shadowing.stop()])

    def _compare(self, present: Retraining, record: Experiment, champion: str, now_ms: int) -> None:
        """See that the version gets the traffic that it may have by what is known of it."""
        gate, tracked = self._measured(present, champion, now_ms), self._tracked(present, record, now_ms)
        if gate is not None and gate.verdict == FAILED:
            reason = f"version {present.version} gets no traffic: {gate.reason}"
            self._write(present, RetrainingStep(REJECTED, reason, champion=champion))
        elif gate is not None and gate.verdict == PASSED and tracked:
            self._challenge(present, gate, now_ms)
        elif present.state == State.SHADOW and present.champion == champion:
            self._look_at_shadow(present, gate, tracked, now_ms)
        elif gate is not None and gate.verdict == PASSED and tracked is None:
            self._note("a tracker is waited for")
        elif gate is not None:
            why = "there are no experiments" if tracked is False else gate.reason
            starts = self._around.ends()
            self._write(present, RetrainingStep(SHADOWS, why, champion=champion, starts=starts))

    def _look_at_shadow(self, present: Retraining, gate: Gate | None, tracked: bool | None, now_ms: int) -> None:
        found = self._compared(present)
        if found.get("final"):
            self._write(present, RetrainingStep(REJECTED, f"it could not be compared: {found['problem']}"))
            return
        if "better" not in found:
            if now_ms > present.changed_at_ms + self._settings.shadow_max_ms:
                days = self._settings.shadow_max_ms / DAY_MS
                reason = f"in the shadow of version {present.champion}: no verdict after {days:g} days"
                known = f"; of its traffic: {gate.reason}" if gate is not None else ""
                self._write(present, RetrainingStep(REJECTED, reason + known))
            return
        reason = f"in the shadow of version {present.champion}: {found['reason']}"
        self._found = f"; {reason}"
        figures: Mapping[str, float] = found["figures"]
        if not found["better"]:
            self._write(present, RetrainingStep(REJECTED, reason, figures, champion=present.champion))
        elif gate is None or tracked is None:
            self._note(f"{reason}; {'it is measured again' if gate is None else 'a tracker is waited for'}")
        elif tracked:
            self._challenge(present, gate, now_ms)
        elif not self._write(present, RetrainingStep(PROMOTED, reason, figures, champion=present.champion)):
            self._note(f"{reason}; after a rollback promotions wait")

    def _tracked(self, present: Retraining, record: Experiment, now_ms: int) -> bool | None:
        """Whether there are experiments; None while that is not known.

        A tracker that is there defines what it is asked to define.
        """
        if self._settings.experiments != "auto":
            return self._settings.experiments == "on"
        if record.definition.experiment_id:
            return True
        definition = self._definition(present, known=False)
        asked_s = self._asking.ask([challenge.define(present, definition, now_ms)], definition.experiment_id)
        return False if asked_s * 1_000 > self._settings.tracker_wait_ms else None

    def _challenge(self, present: Retraining, gate: Gate, now_ms: int) -> None:
        """Have the tracker start the experiment, once there is room for it."""
        definition = self._definition(present, known=gate.verdict == PASSED)
        problem = challenge.room(definition, self._around.experiments())
        if problem:
            self._note(f"the experiment waits: {problem}")
        else:
            self._asking.ask(challenge.commands(present, definition, gate, now_ms), definition.experiment_id)

    def _await(self, present: Retraining, record: Experiment, now_ms: int) -> None:
        """See that the experiment ends; a winner is promoted by its decision."""
        name = self._definition(present, known=True).experiment_id
        why = challenge.without_winner(record, present.version)
        late = now_ms > present.changed_at_ms + self._settings.experiment_max_ms
        if why:
            why = f"no decision after {self._settings.experiment_max_ms / DAY_MS:g} days" if late else why
            self._write(present, RetrainingStep(REJECTED, f"experiment {name}: {why}"))
        elif late and record.state == challenge.RUNNING:
            self._asking.ask([challenge.stop(name, now_ms)], name)

    def _measured(self, present: Retraining, champion: str, now_ms: int) -> Gate | None:
        """What is known of the version beside this champion; None while it is measured."""
        if self._gate is not None:
            known = self._gate.evidence
            same = (known.model_version, known.champion_version) == (present.version, champion)
            if same and known.at_ms > now_ms - _MEASURED_FOR_MS:
                return self._gate
        name = f"measure {present.version} beside {champion}"
        arguments = [f"--model={self._model_name}", f"--version={present.version}", f"--champion={champion}"]
        answer = self._measuring.answer(name, [*self._measure, *arguments])
        if not answer or "problem" in answer:
            # The version has passed its gates: one that cannot be measured now is measured later.
            return None
        self._measuring.stop()
        self._gate = judge(ParseDict(answer, GateEvidence()))
        log.info("measured", version=present.version, reason=self._gate.reason)
        return self._gate

    def _compared(self, present: Retraining) -> Mapping[str, Any]:
        """The verdict of the comparison in the shadow; empty while there is none."""
        starts = {one.partition: one.offset for one in present.starts}
        arguments = [
            f"--model={self._model_name}",
            f"--version={present.version}",
            f"--champion={present.champion}",
            f"--topic-id={next((one.topic_id for one in present.starts), '')}",
            f"--starts={json.dumps(starts)}",
        ]
        name = f"compare {present.version} with {present.champion} since {present.changed_at_ms}"
        return self._shadowing.answer(name, [*self._shadow, *arguments]) or {}

    def _definition(self, present: Retraining, known: bool) -> ExperimentDefinition:
        return challenge.definition_of(self._model_name, present, self._settings.challenged_share, unknown=not known)
