"""Rows of figures: what every benchmark prints and keeps, always in the same form.

``value`` is what was measured, ``limit`` what the machine gave the bare operation in the same run, ``ratio`` the one
to the other: that is the figure that can be compared between machines. What does not apply is null.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.simulation.figures import Estimate

LATEST = Path(__file__).parent / "results" / "latest.json"

# The packages whose versions move the figures.
MEASURED_PACKAGES = ("millrace", "confluent-kafka", "grpcio", "numpy", "protobuf", "redis")


def machine() -> str:
    """What ran the benchmark: processor, cores that this process may use, system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Versions of the installed packages that move the figures."""
    found = {}
    for package in MEASURED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this checkout, with a + where files were changed since; empty outside of one."""

    def git(*words: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes
    ----------
    name
        Stable name, for example ``recommend.latency_ms``.
    value
        The figure, in ``unit`` (a median where percentiles are given).
    limit
        The bare operation's figure in the same run and unit; ratio is value / limit.
    p50, p90, p99
        Percentiles over all samples, in ``unit``.
    samples
        How many samples there are.
    low, high
        Ends of the 95 % interval, in ``unit``.
    seed
        Of the simulated world, where there is one.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    ratio: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    samples: int | None = None
    low: float | None = None
    high: float | None = None
    seed: int | None = None
    machine: str = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)


def rate_row(name: str, value: float, unit: str, limit: float | None, samples: int | None = None) -> Row:
    """A throughput beside its limit."""
    return Row(name, value, unit, limit=limit, ratio=value / limit if limit else None, samples=samples)


def latency_row(name: str, samples_ms: Sequence[float] | npt.NDArray[np.float64], limit_ms: float | None = None) -> Row:
    """Latencies in milliseconds; the value, like the limit, is the median."""
    if not len(samples_ms):
        raise ValueError(f"{name}: no samples")
    p50, p90, p99 = (float(p) for p in np.percentile(np.asarray(samples_ms), (50, 90, 99)))
    ratio = p50 / limit_ms if limit_ms else None
    return Row(name, p50, "ms", limit_ms, ratio, p50, p90, p99, samples=len(samples_ms))


def estimate_row(name: str, estimate: Estimate, unit: str, samples: int, seed: int) -> Row:
    """A figure of a simulated world with its interval; the samples are shoppers."""
    return Row(name, estimate.value, unit, samples=samples, low=estimate.low, high=estimate.high, seed=seed)


def as_json(rows: Sequence[Row]) -> str:
    """The rows as ``{"rows": [...]}``."""
    return json.dumps({"rows": [asdict(row) for row in rows]}, indent=2)


def append(rows: Sequence[Row], file: Path = LATEST) -> None:
    """Add rows to the file of results; an earlier row of the same name on the same machine is replaced."""
    kept: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    new = {(row.name, row.machine) for row in rows}
    kept = [row for row in kept if (row["name"], row["machine"]) not in new]
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({"rows": kept + [asdict(row) for row in rows]}, indent=2) + "\n", encoding="utf-8")
    beside.replace(file)


def print_table(rows: Sequence[Row]) -> None:
    """A table for people, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=rows[0].machine if rows else None)
    table.add_column("figure", no_wrap=True)
    for column in ("value", "unit", "low", "high", "limit", "ratio", "p50", "p90", "p99", "samples"):
        table.add_column(column, justify="left" if column == "unit" else "right")
    for row in rows:
        table.add_row(
            row.name,
            _number(row.value),
            row.unit,
            *(_number(figure) for figure in (row.low, row.high, row.limit, row.ratio, row.p50, row.p90, row.p99)),
            f"{row.samples:,}" if row.samples is not None else "",
        )
    console = Console()
    # Through a pipe there is no width to fit into.
    (console if console.is_terminal else Console(width=160)).print(table)


def _number(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 1_000 else f"{figure:.3g}"
