"""The moments at which a process dies by its own hand, named in one place.

Each is a call to a system outside of the process, or to the store in front of it. Production code knows nothing of
this: a process that a test forked (``tests.chaos.forking``) replaces a class by one that dies, where the class is used.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from millrace.features.writer import item_script
from millrace.settings import settings
from millrace.topics import ITEM_STATE

POINT, NTH = "FAULT_POINT", "FAULT_NTH"
"""Environment variables: the name of a point, and the how-manieth call of it is the last thing that is done."""


@dataclass(frozen=True, slots=True)
class Point:
    """A call.

    Attributes
    ----------
    module, kind, method
        The class as it is named in the module that makes its objects, and the method.
    after
        Dies when the call has returned, not before it.
    counts
        Which calls count, by their arguments.
    """

    module: str
    kind: str
    method: str
    after: bool = False
    counts: Callable[..., bool] = lambda *_arguments: True


def _of_items(script: object, *_: object) -> bool:
    return script == item_script(settings().features)


def _to_item_state(topic: str, *_: object) -> bool:
    return topic == ITEM_STATE.name


_UPDATER, _OUTPUT, _CONSUMER = "workers.feature_updater.worker", "millrace.stream.output", "millrace.stream.assignment"
_TRANSACTIONS = "millrace.stream.transactions"

FEATURE_UPDATER: Mapping[str, Point] = {
    # A lot of script calls is sent in pieces of 16 KiB.
    "in the middle of the scripts of a batch": Point("redis.connection", "Connection", "send_packed_command"),
    "between users and items": Point(_UPDATER, "FeatureStore", "send", counts=_of_items),
    "between items and their states": Point(_OUTPUT, "Producer", "produce", counts=_to_item_state),
    "between states and positions": Point(_CONSUMER, "Consumer", "commit"),
    "after positions": Point(_CONSUMER, "Consumer", "commit", after=True),
}
JOINER: Mapping[str, Point] = {
    "between outcomes and positions": Point(_TRANSACTIONS, "Producer", "send_offsets_to_transaction"),
    "between positions and commit": Point(_TRANSACTIONS, "Producer", "commit_transaction"),
    "after the commit": Point(_TRANSACTIONS, "Producer", "commit_transaction", after=True),
}
ALL: Mapping[str, Point] = {**FEATURE_UPDATER, **JOINER}


def die_as_told() -> None:
    """Arrange for the death that the environment names, if it does."""
    if name := os.environ.get(POINT):
        _die_at(ALL[name], int(os.environ[NTH]))


def _die_at(point: Point, nth: int) -> None:
    module: Any = importlib.import_module(point.module)
    kind: Any = getattr(module, point.kind)
    calls = count(1)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        last = point.counts(*arguments) and next(calls) == nth
        if last and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = getattr(kind, point.method)(self, *arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(module, point.kind, type(point.kind, (kind,), {point.method: call}))


def feature_updater() -> int:
    """A feature updater that dies as told."""
    from workers.feature_updater.__main__ import main

    die_as_told()
    main([])
    return 0


def outcome_joiner() -> int:
    """A joiner that dies as told."""
    from workers.outcome_joiner.__main__ import main

    die_as_told()
    main([])
    return 0
