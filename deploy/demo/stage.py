"""What the demo is played on: the pipeline with its shoppers, what can be done to them, and what is seen of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.demo import comparison
from deploy.demo.story import Deed, Line, Seen
from deploy.embedded.jars import Say
from deploy.embedded.member import clean_environment, stop
from deploy.embedded.pipeline import SIMULATE, Pipeline, pipeline
from deploy.embedded.watch import Watch
from millrace.drift.status import DriftStatus
from millrace.registry import asking
from millrace.registry.ledger import Ledger
from millrace.settings import SECOND_MS, Settings
from millrace.stream.reader import TopicReader
from millrace.topics import DRIFT_SIGNALS, MODEL_EVENTS
from millrace.v1.command_pb2 import Command
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.model_pb2 import ModelEvent

PAGES_PER_S = 10.0
"""Of ``millrace run``; the demo's speed multiplies it."""
_PRESENTER = "millrace demo"
_SIGNALS = {Deed.SHIFT: signal.SIGUSR1, Deed.SELL_OUT: signal.SIGUSR2}


def environment(seconds: float) -> Mapping[str, str]:
    """Settings of a shop whose weeks are minutes: what waits for hours waits for parts of the story."""
    return {
        "RETRAIN_DEBOUNCE_MS": "5000",
        "RETRAIN_COLLECT_MS": str(round(seconds * SECOND_MS * 0.05)),
        # So long the end of a retraining is to be seen before the next one begins.
        "RETRAIN_COOL_DOWN_MS": str(round(seconds * SECOND_MS * 0.05)),
        "RETRAIN_CHALLENGED_SHARE": "0.5",
        "RETRAIN_INTERVAL_HOURS": "0",
        "DRIFT_CHECK_INTERVAL_MS": "10000",
    }


class Stage:
    """A running pipeline, as the story sees it. See :func:`stage`."""

    def __init__(self, running: Pipeline, settings: Settings, until_exit: ExitStack) -> None:
        self._running, self._settings = running, settings
        self._model = settings.orchestrator.model_name
        self._ledger, self._drift = Ledger(self._model), DriftStatus(self._model)
        self._watch = until_exit.enter_context(Watch(running, settings))
        self._reader = until_exit.enter_context(
            TopicReader(running.kafka, [MODEL_EVENTS, DRIFT_SIGNALS], "beginning", settings.stream)
        )
        self._sender = asking.CommandSender(running.kafka)
        self.ready = False

    def look(self, share: float) -> Seen:
        """What is known now; takes up to a second."""
        snapshot = self._watch.snapshot()
        for record in self._reader.poll(timeout_s=0):
            if isinstance(record.message, ModelEvent):
                self._ledger.apply(record.message)
            elif isinstance(record.message, DriftSignal) and record.message.model_name == self._model:
                self._drift.take(record.message)
        self.ready = self.ready or (snapshot.healthy and bool(self._ledger.champion))
        return Seen(
            share=share,
            click_through=snapshot.shop.click_through_recent if snapshot.shop else None,
            learned=snapshot.learning.learned,
            champion=self._ledger.champion,
            drifts=self._labels_drift(),
            retraining=self._ledger.retrainings.newest,
        )

    def do(self, line: Line) -> None:
        """Do what goes with a line. Raises InfrastructureError where the broker does not take a command."""
        if line.deed in _SIGNALS:
            os.kill(self._running.supervisor.processes()[SIMULATE].pid, _SIGNALS[line.deed])
        elif line.deed is Deed.RETRAIN:
            self._send(asking.retrain(self._model, _PRESENTER, line.text))
        elif line.deed is Deed.PROMOTE:
            self._send(asking.promote(self._model, line.version, _PRESENTER, line.text))

    def _send(self, command: Command) -> None:
        self._sender.send(self._model, command, timeout_s=10)

    def _labels_drift(self) -> str:
        """Of the champion of now: a drift of the one before is none of its own."""
        performance = DriftChannel.DRIFT_CHANNEL_PERFORMANCE
        names = sorted(
            {
                evidence.name.replace("_", " ")
                for one in self._drift.signals.values()
                if one.holds and one.channel == performance and one.model_version == self._ledger.champion
                for evidence in one.evidence
            }
        )
        return f"{', '.join(names)} of version {self._ledger.champion} are not what they were" if names else ""


@contextmanager
def stage(settings: Settings, speed: float, folder: Path, say: Say) -> Iterator[Stage]:
    """The pipeline, its shoppers and the simulated month beside it, for the length of a ``with`` block.

    Parameters
    ----------
    speed
        How many times as many shoppers as in ``millrace run``.
    folder
        Where the month's figures come to stand.
    """
    with ExitStack() as until_exit:
        running = until_exit.enter_context(pipeline(settings, PAGES_PER_S * speed, say))
        with (folder / "comparison.log").open("wb") as log:
            month = subprocess.Popen(
                [sys.executable, "-m", comparison.__name__, str(folder / "month.json")],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until_exit.callback(stop, month)
        yield Stage(running, settings, until_exit)
