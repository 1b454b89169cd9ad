"""What each worker of `make run` costs: its share of the processor time of all workers, with simulated shoppers.

The drift detector watches: the first version gets a reference here, as if it had been trained (what the reference says
is no matter of cost). Shares hardly depend on what else a machine does; seconds do.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.environment import Say
from benchmarks.report import Row
from benchmarks.unused_features import reference_of
from deploy.embedded import scrape
from deploy.embedded.pipeline import PROCESSES, Pipeline, pipeline
from millrace.drift.storing import REFERENCE_FILE
from millrace.errors import MillraceError
from millrace.ranking.first import first_ranker
from millrace.registry.cache import default_directory
from millrace.settings import home, settings

PAGES_PER_S = 10.0
"""As `make run`."""
WARM_UP_S, SLICES, SLICE_S = 30.0, 8, 10.0
START_TIMEOUT_S = 180.0
WORKERS = [name for name, module in PROCESSES.items() if module.startswith("workers.")]
DETECTOR = "drift_detector"


def run(say: Say) -> list[Row]:
    """Each worker's share of all workers' processor time, and the time that all take of a core."""
    with home_of_its_own():
        folder = default_directory(settings().recommender.model_name) / "1"
        first_ranker().save(folder)
        say("making a reference")
        (folder / REFERENCE_FILE).write_bytes(reference_of(first_ranker(), np.random.default_rng(1)))
        with pipeline(settings(), PAGES_PER_S, say) as running:
            _wait_watching(running, say)
            say(f"warm-up, {WARM_UP_S:g} s")
            time.sleep(WARM_UP_S)
            say(f"{SLICES * SLICE_S:g} s")
            processes = running.supervisor.processes()
            taken = watch({name: processes[name].pid for name in WORKERS}, SLICES, SLICE_S)
    return list(rows_of(taken, SLICES * SLICE_S))


def watch(pids: Mapping[str, int], slices: int, slice_s: float) -> dict[str, list[float]]:
    """Seconds of processor time that each process took in each slice of time, those included that it started."""
    taken: dict[str, list[float]] = {name: [] for name in pids}
    before = {name: seconds(pid) for name, pid in pids.items()}
    for _ in range(slices):
        time.sleep(slice_s)
        for name, pid in pids.items():
            now = seconds(pid)
            taken[name].append(now - before[name])
            before[name] = now
    return taken


def rows_of(taken: Mapping[str, list[float]], lasted_s: float) -> Iterator[Row]:
    """A share of each, with an interval over the slices, and how many cores all of them took."""
    total = np.sum([np.array(mine) for mine in taken.values()], axis=0)
    for name, mine in taken.items():
        shares = np.array(mine) / total
        wide = 1.96 * float(shares.std(ddof=1)) / len(shares) ** 0.5
        value = float(np.sum(mine) / total.sum())
        low, high = max(min(value, float(shares.mean()) - wide), 0.0), max(value, float(shares.mean()) + wide)
        yield Row(f"processor_time.{name}", value, "share", samples=len(shares), low=low, high=high)
    yield Row("processor_time.workers", float(total.sum() / lasted_s), "cores", samples=len(total))


@contextmanager
def home_of_its_own() -> Iterator[None]:
    """A folder of one's own: a pipeline that is there already is left alone."""
    before = os.environ.get("MILLRACE_HOME")
    with tempfile.TemporaryDirectory(prefix="millrace-bench-", ignore_cleanup_errors=True) as name:
        os.environ["MILLRACE_HOME"] = str(Path(name))
        settings.cache_clear()
        try:
            yield
        finally:
            if before is None:
                del os.environ["MILLRACE_HOME"]
            else:
                os.environ["MILLRACE_HOME"] = before
            settings.cache_clear()


def _wait_watching(running: Pipeline, say: Say) -> None:
    """Until the detector watches the first version."""
    say("waiting for the detector to watch")
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        for one in scrape.all_announcements(home() / "run"):
            if one.process == DETECTOR and scrape.total(scrape.samples(one.metrics), "millrace_drift_watching"):
                return
        time.sleep(1.0)
    raise MillraceError(f"{DETECTOR} does not watch; see {running.log(DETECTOR)}")


def seconds(pid: int) -> float:
    """Processor time of a process so far, those included that it started and that have not ended."""
    mine = psutil.Process(pid)
    times = [one.cpu_times() for one in (mine, *mine.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))
