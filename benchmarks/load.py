"""An open-loop load generator, a process of its own: ``python -m benchmarks.load``.

Requests are sent at times fixed in advance (random, as independent users come: exponential gaps), and a latency is
counted from the time at which the request should have been sent. A service that stalls, or a generator that falls
behind, therefore shows in every request that had to wait ("coordinated omission" is avoided, G. Tene).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.environment import ASK_TIMEOUT_S, ROOT, START_TIMEOUT_S
from millrace.v1.recommendation_service_pb2 import RecommendRequest

METHOD = "/millrace.v1.RecommendationService/Recommend"
# As from several application servers; one HTTP/2 connection would serialise its requests.
CONNECTIONS = 8
# A request that takes longer has failed.
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run.

    Attributes
    ----------
    latencies_ms
        Of every request, failed ones too.
    failed
        How many got no answer.
    seconds
        From the first scheduled time to the last answer.
    late_ms
        The 99th percentile of how late the generator itself sent: what it adds to the latencies.
    """

    latencies_ms: npt.NDArray[np.float64]
    failed: int
    seconds: float
    late_ms: float

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return (len(self.latencies_ms) - self.failed) / self.seconds

    def p(self, percent: float) -> float:
        """A percentile of the latencies, ms."""
        return float(np.percentile(self.latencies_ms, percent))


def run_load(target: str, users: Sequence[str], k: int, rate: float, seconds: float, seed: int = 1) -> Load:
    """Load a service for some seconds from another process.

    Parameters
    ----------
    users
        Asked for in random order.
    rate
        Requests per second.
    """
    with tempfile.TemporaryDirectory(prefix="millrace-load-") as folder:
        plan, result = Path(folder) / "plan.json", Path(folder) / "result.npz"
        words = {"target": target, "users": list(users), "k": k, "rate": rate, "seconds": seconds, "seed": seed}
        plan.write_text(json.dumps(words), encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.load", str(plan), str(result)],
            cwd=ROOT,
            check=True,
            timeout=seconds + START_TIMEOUT_S,
        )
        with np.load(result) as numbers:
            return Load(
                numbers["latencies_ms"], int(numbers["failed"]), float(numbers["seconds"]), float(numbers["late_ms"])
            )


async def _generate(plan: dict[str, Any]) -> dict[str, Any]:
    random = np.random.default_rng(plan["seed"])
    count = max(1, int(plan["rate"] * plan["seconds"]))
    times = np.cumsum(random.exponential(1.0 / plan["rate"], count)).tolist()
    # Serialised in advance: the generator shares the machine with the service.
    requests = [RecommendRequest(user_id=user, k=plan["k"]).SerializeToString() for user in plan["users"]]
    chosen = random.integers(0, len(requests), count).tolist()
    latencies, late, failed = np.zeros(count), np.zeros(count), 0
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(plan["target"], options=options) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    calls: list[Any] = [channel.unary_unary(METHOD) for channel in channels]
    for call in calls:
        await call(requests[0], timeout=ASK_TIMEOUT_S)

    async def ask(number: int, due: float) -> None:
        nonlocal failed
        try:
            await calls[number % CONNECTIONS](requests[chosen[number]], timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError:
            failed += 1
        latencies[number] = time.perf_counter() - due

    start = time.perf_counter() + 0.05
    tasks = []
    for number, at in enumerate(times):
        due = start + at
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        late[number] = time.perf_counter() - due
        tasks.append(asyncio.create_task(ask(number, due)))
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - start
    for channel in channels:
        await channel.close()
    return {
        "latencies_ms": latencies * 1000,
        "failed": failed,
        "seconds": seconds,
        "late_ms": np.percentile(late, 99) * 1000,
    }


@click.command()
@click.argument("plan", type=click.Path(path_type=Path, exists=True))
@click.argument("result", type=click.Path(path_type=Path))
def main(plan: Path, result: Path) -> None:
    """Send the load that PLAN (JSON) describes and write the latencies to RESULT (npz)."""
    np.savez(result, **uvloop.run(_generate(json.loads(plan.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
