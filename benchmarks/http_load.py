"""A closed-loop HTTP load generator, a process of its own: ``python -m benchmarks.http_load``.

Each connection posts, waits for the answer and posts again: the rate is what the service bears with so many callers,
and a latency is what each of them waits then. Requests are made in advance; of answers only status and length are read.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.environment import ROOT, START_TIMEOUT_S

_HEAD = re.compile(rb"HTTP/1\.1 (\d+) .*?\r\ncontent-length: (\d+)\r\n", re.DOTALL | re.IGNORECASE)
# Bodies that are posted in turn; a fresh one each time would measure the generator.
BODIES_MAX = 200


@dataclass(frozen=True, slots=True)
class HttpLoad:
    """What came of a run.

    Attributes
    ----------
    latencies_ms
        Of every answer.
    failed
        Answers that were no success.
    """

    latencies_ms: npt.NDArray[np.float64]
    failed: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Successes per second."""
        return (len(self.latencies_ms) - self.failed) / self.seconds


def run_http_load(address: str, path: str, bodies: Sequence[object], connections: int, seconds: float) -> HttpLoad:
    """Post bodies (JSON) in turn, on so many connections at once, from another process.

    Parameters
    ----------
    address
        ``host:port``.
    """
    with tempfile.TemporaryDirectory(prefix="millrace-load-") as folder:
        plan, result = Path(folder) / "plan.json", Path(folder) / "result.npz"
        words = {"address": address, "path": path, "connections": connections, "seconds": seconds}
        plan.write_text(json.dumps(words | {"bodies": list(bodies)[:BODIES_MAX]}), encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.http_load", str(plan), str(result)],
            cwd=ROOT,
            check=True,
            timeout=seconds + START_TIMEOUT_S,
        )
        with np.load(result) as numbers:
            return HttpLoad(numbers["latencies_ms"], int(numbers["failed"]), float(numbers["seconds"]))


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Sequence[bytes], first: int, until: float) -> None:
        self._requests, self._next, self._until = requests, first, until
        self._answer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._post()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, rest = self._answer.partition(b"\r\n\r\n")
        if not separator:
            return
        found = _HEAD.search(head + b"\r\n")
        assert found is not None, head
        if len(rest) < int(found[2]):
            return
        self.latencies.append(time.perf_counter() - self._sent_at)
        self.failed += not found[1].startswith(b"2")
        self._answer = b""
        if time.perf_counter() < self._until:
            self._post()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed by the service"))

    def _post(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1


async def _generate(plan: dict[str, Any]) -> dict[str, Any]:
    host, _, port = plan["address"].rpartition(":")
    requests = []
    for content in plan["bodies"]:
        body = json.dumps(content).encode()
        head = (
            f"POST {plan['path']} HTTP/1.1\r\nHost: {plan['address']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    began = time.perf_counter()
    callers = [_Caller(requests, 17 * number, began + plan["seconds"]) for number in range(plan["connections"])]
    loop = asyncio.get_running_loop()
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, host, int(port))  # type: ignore[misc]
    await asyncio.gather(*(caller.done for caller in callers))
    seconds = time.perf_counter() - began
    latencies = np.concatenate([caller.latencies for caller in callers])
    return {"latencies_ms": latencies * 1000, "failed": sum(one.failed for one in callers), "seconds": seconds}


@click.command()
@click.argument("plan", type=click.Path(path_type=Path, exists=True))
@click.argument("result", type=click.Path(path_type=Path))
def main(plan: Path, result: Path) -> None:
    """Send the load that PLAN (JSON) describes and write the latencies to RESULT (npz)."""
    np.savez(result, **uvloop.run(_generate(json.loads(plan.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
