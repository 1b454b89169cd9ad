"""A Redis Cluster whose masters die when their replicas do not have their newest writes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis as Client

from deploy.embedded.member import start, wait_ready
from deploy.embedded.redis_cluster import address, cluster_nodes, running_cluster
from millrace.settings import StackSettings
from tests.processes import in_time

# Replicas take over after about twice this.
NODE_TIMEOUT_MS = 1_000


class FailingCluster:
    """Runs until :meth:`close`, but for one of its nodes at a time."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._nodes = cluster_nodes(folder, StackSettings().redis, NODE_TIMEOUT_MS)
        self._chance = random.Random(seed)
        self._running = ExitStack()
        self._processes = self._running.enter_context(running_cluster(self._nodes))
        self._clients = [Client(port=node.port) for node in self._nodes]

    @property
    def url(self) -> str:
        return address(self._nodes)

    @contextmanager
    def losing(self, within_s: float) -> Iterator[int]:
        """Kill -9 of a master so long after the first write that its replica does not have; 0: of no write.

        In the block nobody is in its place; after it the replica is the master, and what died is on its way back.
        Yields how many bytes of writes the replica does not have.
        """
        in_time(self._whole)
        masters = [place for place in range(len(self._nodes)) if self._is("master", place)]
        master = self._chance.choice(masters)
        replica = next(
            place
            for place in range(len(self._nodes))
            if self._facts(place).get("master_port") == self._nodes[master].port
        )
        # Else it is two faults: what came while this master had no replica is lost with it, as is documented.
        begun = self._facts(master)["master_repl_offset"]
        in_time(lambda: self._facts(master)["slave0"]["offset"] >= begun)
        if within_s:
            known = self._waits(master)
            in_time(lambda: self._waits(master) > known)
        # One that stands cannot come back for what it was not sent.
        os.kill(self._processes[replica].pid, signal.SIGSTOP)
        self._clients[master].client_kill_filter(_type="replica")
        had = self._facts(master)["master_repl_offset"]
        if within_s:
            in_time(lambda: self._facts(master)["master_repl_offset"] > had)
            time.sleep(within_s)
        has = self._facts(master)["master_repl_offset"]
        self._processes[master].kill()
        self._processes[master].wait()
        try:
            yield has - had
        finally:
            os.kill(self._processes[replica].pid, signal.SIGCONT)
        in_time(lambda: self._is("master", replica))
        for place, client in enumerate(self._clients):
            if place != master:
                client.config_resetstat()
        self._processes[master] = start(self._nodes[master])

    def close(self) -> None:
        """End it."""
        for client in self._clients:
            client.close()
        self._running.close()

    def _whole(self) -> bool:
        """Whether each master has its replica in step."""
        for node, process in zip(self._nodes, self._processes, strict=True):
            wait_ready(node, lambda process=process: process.poll() is None)  # type: ignore[misc]
        return sum(self._is("slave", place) for place in range(len(self._nodes))) == len(self._nodes) // 2

    def _waits(self, place: int) -> int:
        """How often a writer has asked whether the replicas have everything."""
        figures: dict[str, dict[str, int]] = self._clients[place].info("commandstats")
        return figures.get("cmdstat_wait", {}).get("calls", 0)

    def _is(self, role: str, place: int) -> bool:
        return str(self._facts(place)["role"]) == role

    def _facts(self, place: int) -> dict[str, Any]:
        facts: dict[str, Any] = self._clients[place].info("replication")
        return facts
