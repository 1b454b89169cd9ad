"""Reads the metrics and the readiness that processes serve, and where they say that they serve them."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

# A process that answers late is busy, and not in trouble: one that compiles among busy neighbours may take seconds.
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Announcement:
    """A process says in a file of ``home()/run`` where it listens (host:port); ``grpc`` is empty if it serves none."""

    process: str
    pid: int
    metrics: str
    grpc: str


def all_announcements(folder: Path) -> Iterator[Announcement]:
    """What stands in the folder; a process that was killed leaves its file."""
    for path in sorted(folder.glob("*.json")):
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            # Its process ended between the listing and the reading.
            continue
        yield Announcement(content["process"], content["pid"], content["metrics"], content.get("grpc", ""))


def samples(address: str, beginnings: Sequence[str] = ()) -> list[Sample]:
    """Samples of ``/metrics``; empty when the process does not answer.

    ``beginnings``: of the names that are wanted, none: all. Parsing is what takes time.
    """
    answer = _get(address, "/metrics")
    if answer is None:
        return []
    text = answer[1]
    if beginnings:
        text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(tuple(beginnings)))
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def readiness(address: str) -> tuple[bool, Mapping[str, Any]]:
    """Whether ``/readyz`` says ready, and all that it says."""
    answer = _get(address, "/readyz")
    if answer is None:
        return False, {}
    return answer[0] == http.HTTPStatus.OK, json.loads(answer[1])


def _get(address: str, path: str) -> tuple[int, str] | None:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def total(found: Iterable[Sample], name: str, **labels: str) -> float:
    """Sum of the samples of this name that carry these labels."""
    return sum(sample.value for sample in found if sample.name == name and labels.items() <= sample.labels.items())


def buckets(found: Iterable[Sample], name: str, **labels: str) -> dict[float, float]:
    """A histogram's cumulative counts by upper bound."""
    counts: dict[float, float] = {}
    for sample in found:
        if sample.name == f"{name}_bucket" and labels.items() <= sample.labels.items():
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0) + sample.value
    return counts


def quantile(share: float, now: Mapping[float, float], before: Mapping[float, float]) -> float | None:
    """A quantile of what a histogram took between two readings, linear within a bucket; None if it took nothing.

    What lies above the last finite bound counts as that bound, as in Prometheus's ``histogram_quantile``. A reading
    below the earlier one means that the process was started anew: then the earlier counts as nothing.
    """
    if any(now.get(bound, 0) < count for bound, count in before.items()):
        before = {}
    counts = {bound: now[bound] - before.get(bound, 0) for bound in sorted(now)}
    everything = counts.get(math.inf, 0)
    if not everything:
        return None
    rank = share * everything
    lower_bound = lower_count = 0.0
    for bound, count in counts.items():
        if bound == math.inf:
            break
        if count >= rank:
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count)
        lower_bound, lower_count = bound, count
    return lower_bound
