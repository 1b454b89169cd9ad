"""``millrace`` in the process of a test, and what it printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from tests.stream_support import Place


class Run(Protocol):
    """Runs a command, and gives what it prints on both ways (the fixture ``run``)."""

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]: ...


def objects(printed: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in printed.splitlines()]


def offsets(printed: str) -> list[tuple[object, object]]:
    return [(one["partition"], one["offset"]) for one in objects(printed)]


def at(places: Sequence[Place]) -> list[tuple[object, object]]:
    return [(partition, offset) for _topic, partition, offset in places]
