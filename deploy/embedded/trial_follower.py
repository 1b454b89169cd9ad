"""Has the trial of live learning started, once everything is up, and follows it. In a thread: nobody waits for it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from deploy.embedded.snapshot import EXPERIMENT_ID, TrialView
from millrace.errors import MillraceError
from millrace.registry.asking import Refused
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import EXPERIMENTS, MODEL_EVENTS
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.model_pb2 import ModelEvent

# Figures change once a second.
_POLL_S = 0.5
# A command that is not answered by then (the tracker is being started) is sent again, after a look at what is so.
_ASK_S = 5.0
# The tracker may hear of the champion a little later than this does. Whoever refuses again and again has no room for
# it: people have to make it, and the next run asks again.
_REFUSALS_MAX, _REFUSED_PAUSE_S = 3, 5.0
# A thread that asks is not waited for at the end: what it asks for is for every run.
_JOIN_S = 1.0


class TrialFollower:
    """Follows the trial of one registered model.

    Attributes
    ----------
    view
        What is known of it; replaced as a whole.
    """

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> None:
        self.view: TrialView | None = None
        self._kafka, self._stream = kafka, stream
        self._ledger = Ledger(model_name)
        self._record: Experiment | None = None
        self._problem, self._refusals = "", 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start following, if it does not yet. Until then it takes nothing of what starting processes need."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="trial", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _follow(self) -> None:
        with TopicReader(self._kafka, [EXPERIMENTS, MODEL_EVENTS], "beginning", self._stream) as reader:
            while not self._stop.is_set():
                for found in reader.poll(timeout_s=_POLL_S):
                    if isinstance(found.message, ModelEvent):
                        self._ledger.apply(found.message)
                    elif isinstance(found.message, Experiment) and found.key == EXPERIMENT_ID.encode():
                        self._record = found.message
                # Without a champion there is nothing to compare.
                if reader.caught_up and self._ledger.champion:
                    self._step()

    def _step(self) -> None:
        """Ask for what has to be asked for next, and say what is known."""
        # Here, because scipy takes most of a second to import, in which the processes could start.
        from deploy.embedded.trial import next_command, view
        from millrace.experiments.asking import ask_tracker
        from millrace.simulation.truth import read_truths

        asks = self._refusals < _REFUSALS_MAX
        command = next_command(self._record, self._ledger) if asks else None
        if command is not None:
            try:
                self._record, self._problem = ask_tracker(self._kafka, self._stream, command, _ASK_S), ""
            except Refused as error:
                self._problem = str(error)
                self._refusals += 1
                self._stop.wait(_REFUSED_PAUSE_S)
            except MillraceError as error:
                self._problem = str(error)
        truths = read_truths(EXPERIMENT_ID, self._record.started_at_ms) if self._record is not None else {}
        self.view = view(self._record, truths, self._problem)
