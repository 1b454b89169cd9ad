"""Members of groups as processes that are there at once: see ``tests.chaos.forking``."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import time
from functools import partial
from typing import Any

from google.protobuf.message import Message

import millrace.stream.output
import millrace.stream.process
from millrace.stream.codec import encode
from millrace.stream.runtime import Clock, Runtime
from tests.contracts import new_contract, written_by
from workers.feature_updater.__main__ import main as feature_updater
from workers.outcome_joiner.__main__ import main as outcome_joiner

WORKER = "CHAOS_WORKER"
"""Environment variable: which of them."""
CLOCK_SEED = "CHAOS_CLOCK_SEED"
"""Environment variable: the wall clock jumps, as this seed says."""
JUMPS = "the clock jumps"
"""A line with this is written at each jump."""
LATER = "CHAOS_LATER_RELEASE"
"""Environment variable: a process whose every message has fields that this release does not know."""
WORKERS = {"feature_updater": feature_updater, "outcome_joiner": outcome_joiner}
# A worker looks at its clock some times a second.
EVERY_S = (0.05, 0.6)
FARTHEST_S = 3_600.0


class JumpingClock:
    """Unix time, up to an hour fast or slow, and every now and then by another time than before."""

    def __init__(self, seed: int) -> None:
        self._chance, self._true = random.Random(seed), time.time
        self._off_s, self._jump_at = 0.0, 0.0

    def __call__(self) -> float:
        """Seconds."""
        if time.monotonic() >= self._jump_at:
            self._jump_at = time.monotonic() + self._chance.uniform(*EVERY_S)
            self._off_s = self._chance.choice((-FARTHEST_S, self._chance.uniform(-FARTHEST_S, FARTHEST_S), FARTHEST_S))
            sys.stdout.write(f"{JUMPS}: {self._off_s:+.0f} s\n")
        return self._true() + self._off_s


def encoded_later(message: Message) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The value and the headers of a record as a later release writes it."""
    _, headers = encode(message)
    return written_by(new_contract(), message), headers


def member() -> int:
    """Be a process of the worker that the environment names; SIGUSR1 has it print where each thread stands."""
    faulthandler.register(signal.SIGUSR1)
    if seed := os.environ.get(CLOCK_SEED):
        # Python's clock, as everything of ours reads it, and the runtime's, which is given to it. librdkafka's remains;
        # the broker sets the times of records in any case.
        time.time = JumpingClock(int(seed))
        process: Any = millrace.stream.process
        process.Runtime = partial(Runtime, clock=Clock(wall=time.time))
    if LATER in os.environ:
        output: Any = millrace.stream.output
        output.encode = encoded_later
    WORKERS[os.environ[WORKER]]([])
    return 0
