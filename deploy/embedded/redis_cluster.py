"""A Redis Cluster on this machine: three masters, three replicas.

``python -m deploy.embedded.redis_cluster`` runs one in a temporary folder until Ctrl-C and prints its ``REDIS_URL``.
Each node finds the finished cluster in its ``nodes.conf``, which is the file in which it would have noted it: nobody
has to introduce them to each other.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from redis import Redis as Client
from redis.exceptions import RedisError

from deploy.embedded.member import NotReady, start, stop, wait_ready
from deploy.embedded.ports import free_ports_apart
from deploy.embedded.redis import Choice, Redis
from millrace.settings import settings

MASTERS = 3
SLOTS = 16_384
BUS = 10_000
"""Nodes talk to each other at their port and so much."""
# As long as Redis suggests (15 s) is for machines far apart.
NODE_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True)
class ClusterNode(Redis):
    """A node; see :class:`deploy.embedded.member.Member`.

    Attributes
    ----------
    ports
        Of all nodes: the masters, and then a replica of each in the same order.
    node_timeout_ms
        A node that has not answered for so long has failed.
    """

    ports: tuple[int, ...] = ()
    node_timeout_ms: int = NODE_TIMEOUT_MS

    def prepare(self) -> None:
        """Write redis.conf and, the first time, what the node knows of the cluster."""
        Redis.prepare(self)
        if not (known := self.folder / "nodes.conf").exists():
            known.write_text("".join(f"{line}\n" for line in self._nodes()))

    def configuration(self) -> Mapping[str, str]:
        return {
            **Redis.configuration(self),
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(self.node_timeout_ms),
            # A master that is back before its replica takes over must have what the others built upon: decision 30.
            "appendfsync": "always",
            # While one master is away, the others serve.
            "cluster-require-full-coverage": "no",
            # A node that comes back is in step at once.
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
        }

    def check(self) -> None:
        """Ready when the cluster is whole and, of a replica, when it is in step with its master."""
        Redis.check(self)
        try:
            with Client(port=self.port, socket_timeout=1) as client:
                state = client.execute_command("CLUSTER INFO")["cluster_state"]
                replication = client.info("replication")
        except RedisError as error:
            raise NotReady(f"127.0.0.1:{self.port}: {error}") from error
        if state != "ok" or replication.get("master_link_status", "up") != "up":
            raise NotReady(f"127.0.0.1:{self.port}: the cluster is {state}, {replication}")

    def _nodes(self) -> Iterator[str]:
        for place, port in enumerate(self.ports):
            master, epoch = place % MASTERS, place % MASTERS + 1
            mine = "myself," if port == self.port else ""
            if place < MASTERS:
                first, end = (SLOTS * part // MASTERS for part in (master, master + 1))
                role, slots = "master -", f" {first}-{end - 1}"
            else:
                role, slots = f"slave {_id(self.ports[master])}", ""
            yield f"{_id(port)} 127.0.0.1:{port}@{port + BUS} {mine}{role} 0 0 {epoch} connected{slots}"
        yield f"vars currentEpoch {MASTERS} lastVoteEpoch 0"


def cluster_nodes(
    folder: Path, choice: Choice = "auto", node_timeout_ms: int = NODE_TIMEOUT_MS
) -> tuple[ClusterNode, ...]:
    """The nodes of a cluster on free ports, the masters first; each keeps its data in a folder in ``folder``."""
    ports: list[int] = []
    for _ in range(2 * MASTERS):
        ports.append(free_ports_apart(BUS, frozenset(ports)))
    return tuple(
        ClusterNode(folder / f"node-{place}", port, choice, "redis", tuple(ports), node_timeout_ms)
        for place, port in enumerate(ports)
    )


def address(nodes: Sequence[ClusterNode]) -> str:
    """What a client connects to."""
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"


@contextmanager
def running_cluster(nodes: Sequence[ClusterNode]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The nodes, all ready, for the length of a ``with`` block.

    Who puts another process at the place of one in the list, having ended that, has it ended here.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        # None is ready without the others.
        processes.extend(start(node) for node in nodes)
        for node, process in zip(nodes, tuple(processes), strict=True):
            wait_ready(node, lambda process=process: process.poll() is None)  # type: ignore[misc]
        yield processes
    finally:
        for process in processes:
            stop(process)


def _id(port: int) -> str:
    """The name of a node among the others: 40 hexadecimal digits."""
    return hashlib.sha1(str(port).encode(), usedforsecurity=False).hexdigest()


def main() -> None:
    """Run a cluster until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="millrace-redis-") as folder:
        nodes = cluster_nodes(Path(folder), settings().stack.redis)
        with running_cluster(nodes):
            click.echo(f"REDIS_URL={address(nodes)}")
            while True:
                signal.pause()


if __name__ == "__main__":
    main()
