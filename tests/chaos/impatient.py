"""Brokers that give up on the dead soon: tests here kill many processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Self

from deploy.embedded.kafka import Kafka, new_cluster_id
from deploy.embedded.member import start, stop, wait_ready
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.stream.admin import apply_topics

# Three stand side by side.
HEAP_MB, SMALL_HEAP_MB = 384, 192
BROKER_SESSION_MS = 5_000


@dataclass(frozen=True, slots=True)
class ImpatientKafka(Kafka):
    """Partitions of a dead worker move after its session, its transaction ends as soon as its time is over.

    Attributes
    ----------
    session_ms
        Of members of groups.
    """

    session_ms: int = 1_000

    def properties(self) -> Mapping[str, str]:
        # Of the class by name: a dataclass with slots is another class than the one that super() alone would mean.
        return {
            **Kafka.properties(self),
            "group.consumer.session.timeout.ms": str(self.session_ms),
            "group.consumer.heartbeat.interval.ms": "200",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "100",
            # 9 s by default: partitions of a dead broker get other leaders.
            "broker.session.timeout.ms": str(BROKER_SESSION_MS),
            "broker.heartbeat.interval.ms": "400",
        }


class Brokers:
    """One broker or several of a cluster, which a test kills, stops and starts again. A context manager: all end.

    Parameters
    ----------
    folder
        Each has one of its own in it.
    count
        1 or 3; each partition is kept by all of them.

    Attributes
    ----------
    kafka
        How clients come to them.
    nodes
        Their numbers.
    """

    def __init__(
        self, folder: Path, jars: Sequence[Path], count: int = 1, partitions: int = 3, session_ms: int = 1_000
    ) -> None:
        ports = [free_port() for _ in range(2 * count)]
        listeners, quorum, cluster_id = ports[:count], ports[count:], new_cluster_id()
        self._members = [
            ImpatientKafka(
                folder / f"broker-{node}",
                port,
                quorum[node - 1],
                jars,
                heap_mb=HEAP_MB if count == 1 else SMALL_HEAP_MB,
                node=node,
                quorum=quorum,
                cluster_id=cluster_id,
                session_ms=session_ms,
            )
            for node, port in enumerate(listeners, 1)
        ]
        self._processes: dict[int, Popen[bytes]] = {}
        self.nodes = range(1, count + 1)
        self.kafka = KafkaSettings(
            bootstrap_servers=",".join(member.address for member in self._members),
            partitions=partitions,
            replication_factor=count,
        )

    def kill(self, node: int) -> None:
        """Kill -9, and wait until it is gone."""
        self._processes[node].kill()
        self._processes[node].wait()

    def stop(self, node: int) -> None:
        """SIGTERM: it hands over what it leads, closes its logs and ends."""
        stop(self._processes[node])

    @contextmanager
    def silent(self, node: int) -> Iterator[None]:
        """It answers nothing in a ``with`` block, and everything afterwards."""
        self._processes[node].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[node].send_signal(signal.SIGCONT)

    def start(self, node: int) -> None:
        """Start it again, and wait until clients may use it."""
        self._processes[node] = start(self._members[node - 1])
        self._wait_ready(node)

    def __enter__(self) -> Self:
        # At once: one alone has no quorum.
        with ThreadPoolExecutor(len(self._members)) as pool:
            self._processes = dict(zip(self.nodes, pool.map(start, self._members), strict=True))
        try:
            for node in self.nodes:
                self._wait_ready(node)
            apply_topics(self.kafka)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def _wait_ready(self, node: int) -> None:
        wait_ready(self._members[node - 1], alive=lambda: self._processes[node].poll() is None)

    def _end(self) -> None:
        # Killed: the last ones would wait for a quorum to end by.
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            stop(process)


@contextmanager
def impatient_kafka(
    folder: Path, jars: tuple[Path, ...], partitions: int = 3, session_ms: int = 1_000
) -> Iterator[KafkaSettings]:
    """One such broker, with every topic made."""
    with Brokers(folder, jars, partitions=partitions, session_ms=session_ms) as brokers:
        yield brokers.kafka
