"""Which processes of this machine's pipeline say where they listen; and what is read of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from millrace.stream.scrape import Announcement, all_announcements, buckets, quantile, readiness, samples, total

__all__ = [
    "Announcement",
    "all_announcements",
    "announcements",
    "buckets",
    "forget_dead",
    "quantile",
    "readiness",
    "samples",
    "total",
]


def announcements(folder: Path, pids: Iterable[int]) -> Iterator[Announcement]:
    """What the processes ``pids`` and those that they started announce; files of dead processes are passed over."""
    family = {pid for parent in pids for pid in _family(parent)}
    return (announcement for announcement in all_announcements(folder) if announcement.pid in family)


def forget_dead(folder: Path) -> None:
    """Remove what processes announced that were killed since."""
    for path in folder.rglob("*.json"):
        pid = int(path.stem.rpartition("-")[2])
        if not psutil.pid_exists(pid):
            path.unlink(missing_ok=True)


def _family(pid: int) -> Iterator[int]:
    try:
        yield pid
        yield from (child.pid for child in psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return
