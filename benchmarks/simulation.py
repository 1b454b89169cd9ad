"""Whether learning pays: what the shoppers of one made-up shop click, split by hash among three ways to fill a page.

``live`` is ranked by the model that learns from every outcome; ``frozen`` by another registered model that begins as
the same first version and has no learner, so that it stays what it was; ``popular`` shows the most clicked items. All
three are open at the same time in the same world: every click moves the features that both recommenders read, and the
learner learns from the outcomes of both. What is compared is therefore the learned weights, and nothing else.

The first minutes do not count: the shop is new, nobody is known, and nothing is learned. Intervals are by shopper
(``millrace.simulation.figures``). The machine is watched all the time: a recommender or a worker that cannot follow
would make the figures those of another shop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import seed
from benchmarks.environment import ROOT, Process, Say, Servers, process, servers
from benchmarks.report import Row, estimate_row
from deploy.embedded import scrape
from deploy.embedded.member import log_tail, stop
from deploy.embedded.pipeline import ATTRIBUTION_WINDOW_MS
from millrace.errors import MillraceError
from millrace.simulation.figures import Estimate, Z

# None of the worlds that the sizes below were tried out in.
SEED = 5
PAGES_PER_S, WARM_UP_S, DURATION_S = 100.0, 150.0, 350.0
# So few that most of them come back within minutes: of strangers there is nothing to be learned.
SHOPPERS, ITEMS = 800, 1_000
ARMS = {"live": 0.35, "frozen": 0.35, "popular": 0.3}
FIGURES = ("click_through", "conversion")
LEARNS, FROZEN = "ranker", "frozen"
# Between two looks at what waits for the workers.
LOOK_S = 2.0


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """Click-through and conversion of each arm and of ``live`` against the others; whether the machine followed."""
    with servers(say, bootstrap_servers, redis_url) as at, ExitStack() as running:
        for name in (LEARNS, FROZEN):
            seed.promote_first_ranker(at.kafka, name)
        say("starting workers and recommenders")
        window = {"MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": str(ATTRIBUTION_WINDOW_MS)}
        workers = [
            running.enter_context(process("workers.feature_updater", at)),
            running.enter_context(process("workers.outcome_joiner", at, **window)),
            running.enter_context(process("workers.online_learner", at)),
        ]
        live, frozen = (
            running.enter_context(process("services.recommender", at, MILLRACE_RECOMMENDER_MODEL_NAME=name))
            for name in (LEARNS, FROZEN)
        )
        for started in (*workers, live, frozen):
            started.wait_ready()
        say(f"{PAGES_PER_S:g} pages/s for {DURATION_S:g} s, the first {WARM_UP_S:g} s as a warm-up")
        said, behind = _open_shop(at, live.announced["grpc"], frozen.announced["grpc"], workers)
    return [*_figure_rows(said), *_health_rows(said, behind)]


def _open_shop(at: Servers, live: str, frozen: str, workers: Sequence[Process]) -> tuple[dict[str, Any], float]:
    """What ``millrace simulate`` says at its end, and the most records that ever waited for the workers."""
    arms = {"live": f"live=recommended@{live}", "frozen": f"frozen=recommended@{frozen}", "popular": "popular"}
    options = {
        "seed": SEED,
        "rate": PAGES_PER_S,
        "duration": DURATION_S,
        "warm-up": WARM_UP_S,
        "shoppers": SHOPPERS,
        "items": ITEMS,
    }
    command = [sys.executable, "-m", "millrace", "simulate", "--json"]
    command += [f"--{name}={value:g}" for name, value in options.items()]
    command += [f"--arm={arms[name]}:{share}" for name, share in ARMS.items()]
    printed, log = at.home / "simulate.json", at.home / "simulate.log"
    behind = 0.0
    with printed.open("wb") as output, log.open("wb") as errors:
        shop = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | at.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        while shop.poll() is None:
            behind = max(behind, *(_lag(worker) for worker in workers))
            time.sleep(LOOK_S)
    finally:
        stop(shop)
    if shop.returncode:
        raise MillraceError(f"millrace simulate ended with {shop.returncode}; the end of its log:\n{log_tail(log)}")
    said: dict[str, Any] = json.loads(printed.read_text(encoding="utf-8"))
    return said, behind


def _lag(worker: Process) -> float:
    return scrape.total(scrape.samples(worker.announced["metrics"]), "millrace_stream_lag_records")


def _figure_rows(said: dict[str, Any]) -> list[Row]:
    arms = {arm["name"]: arm for arm in said["arms"]}
    rows = []
    for figure in FIGURES:
        estimates = {name: _estimate(arms[name][figure]) for name in ARMS}
        for name, estimate in estimates.items():
            rows.append(estimate_row(f"simulation.{figure}.{name}", estimate, "share", arms[name]["shoppers"], SEED))
        for name in ("frozen", "popular"):
            told = arms["live"]["shoppers"] + arms[name]["shoppers"]
            relative = estimates["live"].relative_to(estimates[name])
            rows.append(estimate_row(f"simulation.{figure}.live_vs_{name}", relative, "relative", told, SEED))
    return rows


def _estimate(values: dict[str, float]) -> Estimate:
    return Estimate(values["value"], (values["high"] - values["value"]) / Z)


def _health_rows(said: dict[str, Any], behind: float) -> list[Row]:
    requests, failed = (sum(arm[name] for arm in said["arms"]) for name in ("requests", "requests_failed"))
    return [
        Row("simulation.requests_failed", failed / requests, "share", samples=requests, seed=SEED),
        Row("simulation.sessions_late", said["late"], "sessions", seed=SEED),
        Row("simulation.workers_behind", behind, "records", seed=SEED),
    ]
