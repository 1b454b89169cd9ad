"""The jars of Apache Kafka, resolved through jgo into the machine's Maven cache."""

from __future__ import annotations

import fcntl
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from millrace.errors import InfrastructureError

# Kafka logs through slf4j and its jars bring no binding: without one a broker that fails is silent.
# 1.7.36 is the line of slf4j-api that Kafka 4 depends on.
COORDINATES = "org.apache.kafka:kafka_2.13:{version}+org.slf4j:slf4j-simple:1.7.36"
DOWNLOADS_AT_ONCE = 4

Say = Callable[[str], None]
"""Receives one line on what goes on."""


def silent(line: str) -> None:
    """Progress for nobody."""
    del line


def classpath(version: str, say: Say = silent) -> tuple[Path, ...]:
    """All jars that a broker of this version needs; the first time on a machine they are fetched (about 45 MB).

    ``jgo.build`` is not used: it would fetch a JDK 11 only to sort jars into class path and module path.

    Raises
    ------
    InfrastructureError
        They cannot be fetched.
    """
    import jgo
    import requests

    say(f"resolving Kafka's jars (version {version})")
    try:
        with _only_one_process():
            return tuple(fetch(jgo.resolve(COORDINATES.format(version=version)), say))
    except (RuntimeError, OSError, requests.RequestException, zipfile.BadZipFile) as error:
        raise InfrastructureError(
            "kafka", f"its jars ({version}) cannot be fetched: {error}; the first start needs Maven Central"
        ) from error


def version(jars: Sequence[Path]) -> str:
    """Which Kafka a class path holds."""
    return next(jar.stem.removeprefix("kafka_2.13-") for jar in jars if jar.name.startswith("kafka_2.13-"))


def fetched(version: str) -> bool:
    """Whether the broker's own jar is in the machine's Maven cache; asks no server."""
    from jgo.maven import MavenContext

    folder = Path(MavenContext().repo_cache) / "org" / "apache" / "kafka" / "kafka_2.13" / version
    return (folder / f"kafka_2.13-{version}.jar").exists()


def fetch(artifacts: Sequence[Any], say: Say) -> Iterator[Path]:
    """The file of each artifact (of jgo), fetched where it is missing or damaged."""
    missing = [artifact for artifact in artifacts if not _complete(artifact.cached_path)]
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        downloads = {pool.submit(artifact.resolve): artifact for artifact in missing}
        for number, download in enumerate(as_completed(downloads), start=1):
            path = download.result()
            say(f"resolving Kafka's jars: {number} of {len(missing)} ({path.name})")
    for artifact in artifacts:
        path = artifact.cached_path
        if not _complete(path):
            raise zipfile.BadZipFile(f"{path} is damaged")
        yield path


def _complete(path: Path) -> bool:
    """Whether the jar is there and whole. One that was cut off by a kill is removed, so that it is fetched anew."""
    if path.exists() and not zipfile.is_zipfile(path):
        path.unlink()
    return path.exists()


@contextmanager
def _only_one_process() -> Iterator[None]:
    """Hold off other processes of this user that resolve jars: jgo writes files in place."""
    with (Path(tempfile.gettempdir()) / f"millrace-jars-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
