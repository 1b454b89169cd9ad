"""Clicks at a fixed rate, a process of its own: ``python -m benchmarks.clicks --rate 1000 --seconds 30``.

2,000 users on 10,000 items whose popularity is as on the web (Zipf). Clicks are sent at times fixed in advance, in
steps of 2 ms; a generator that falls behind sends what is due at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import numpy as np

from benchmarks.environment import ROOT
from benchmarks.seed import item_id, now_ms
from deploy.embedded.member import stop
from millrace.client import EventProducer
from millrace.settings import KafkaSettings

USERS, ITEMS = 2_000, 10_000
STEP_S = 0.002


@contextmanager
def background_clicks(kafka: KafkaSettings, rate: int, seconds: float) -> Iterator[None]:
    """Clicks from another process for the length of a block (at most ``seconds``)."""
    popen = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.clicks"),
            *("--bootstrap-servers", kafka.bootstrap_servers, "--rate", str(rate), "--seconds", str(seconds)),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
        if popen.poll() not in (None, 0):
            raise RuntimeError(f"the background load ended with status {popen.returncode}")
    finally:
        stop(popen)


@click.command()
@click.option("--bootstrap-servers", required=True)
@click.option("--rate", type=int, required=True, help="Clicks per second.")
@click.option("--seconds", type=float, required=True)
def main(bootstrap_servers: str, rate: int, seconds: float) -> None:
    """Send clicks at a rate."""
    random = np.random.default_rng()
    count = int(rate * seconds)
    weights = 1.0 / np.arange(1, ITEMS + 1)
    items = random.choice(ITEMS, count, p=weights / weights.sum()).tolist()
    users = random.integers(0, USERS, count).tolist()
    with EventProducer(KafkaSettings(bootstrap_servers=bootstrap_servers)) as events:
        start = time.perf_counter()
        sent = 0
        while sent < count:
            due = min(count, int((time.perf_counter() - start) * rate))
            for number in range(sent, due):
                events.interaction(f"reader-{users[number]}", item_id(items[number]), "click", occurred_at=now_ms())
            sent = due
            time.sleep(STEP_S)


if __name__ == "__main__":
    main()
