"""Keeps Kafka's classes as a JVM has loaded and linked them: whoever starts many brokers, starts them in half the time.

A JVM from version 25 on writes them into a file when it ends (JEP 514), and starts from it. One that finds the file of
another JVM or of other jars starts without it.
"""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.embedded.kafka import Kafka, class_archive
from deploy.embedded.member import clean_environment, log_path, log_tail, stop, wait_ready
from deploy.embedded.ports import free_port
from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings
from millrace.stream.admin import apply_topics

# Three seconds on an idle machine (measured); neighbours may make that fifty times as long.
WRITING_TIMEOUT_S = 180.0


def keep_classes(jars: Sequence[Path]) -> None:
    """Keep them, unless they are kept already: a broker starts, makes our topics and ends (5 s, 65 MB).

    Raises
    ------
    InfrastructureError
        The broker does not start, or its JVM wrote nothing; the end of its log is in the message.
    """
    archive = class_archive(jars)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (archive.parent / "lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if archive.exists():
            return
        port = free_port()
        member = Kafka(Path(folder), port, free_port(taken=frozenset({port})), jars)
        part = archive.with_suffix(".part")
        member.prepare()
        java, *arguments = member.command()
        with log_path(member).open("wb") as log:
            process = subprocess.Popen(
                [java, f"-XX:AOTCacheOutput={part}", *arguments],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_ready(member, alive=lambda: process.poll() is None)
            apply_topics(KafkaSettings(bootstrap_servers=member.address))
        finally:
            stop(process, WRITING_TIMEOUT_S)
        if not part.exists():
            raise InfrastructureError("kafka", f"its JVM kept no classes:\n{log_tail(log_path(member))}")
        part.replace(archive)
