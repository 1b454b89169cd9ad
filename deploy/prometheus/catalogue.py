"""Every metric of Millrace, found in the code, so that no list of them can be forgotten."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric as Family

from millrace.simulation.metrics import families

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("millrace", "services", "workers")
PREFIX = "millrace_"

Kind = Literal["counter", "gauge", "histogram"]
_KINDS: dict[type[Counter | Gauge | Histogram], Kind] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes
    ----------
    name
        As it is scraped; of a histogram without ``_bucket``, ``_sum`` and ``_count``.
    labels
        Those that the process sets; Prometheus adds ``instance``, ``job`` and ``process``.
    """

    name: str
    kind: Kind
    labels: Sequence[str]
    help: str

    @property
    def part(self) -> str:
        """The part of Millrace that it is of: the word after the prefix."""
        return self.name.removeprefix(PREFIX).partition("_")[0]

    @property
    def series(self) -> Sequence[str]:
        """The names that queries use."""
        return [self.name + end for end in ("_bucket", "_sum", "_count")] if self.kind == "histogram" else [self.name]


def catalogue() -> dict[str, Metric]:
    """All metrics by name, in the order of their names."""
    found = [*_of_modules(), *map(_of_family, families())]
    return {metric.name: metric for metric in sorted(found, key=lambda metric: metric.name)}


def _of_modules() -> Iterator[Metric]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if _makes_metrics(path):
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                yield from _of_objects(vars(module).values())


def _makes_metrics(path: Path) -> bool:
    """Whether a module calls ``Counter("millrace_…", …)`` or one of the others."""
    text = path.read_text()
    if "prometheus_client" not in text:
        return False
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {kind.__name__ for kind in _KINDS}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        for node in ast.walk(ast.parse(text))
    )


def _of_objects(objects: Iterable[object]) -> Iterator[Metric]:
    for one in objects:
        if isinstance(one, Counter | Gauge | Histogram):
            (family,) = one.describe()
            yield _of_family(family, one._labelnames)


def _of_family(family: Family, labels: Sequence[str] | None = None) -> Metric:
    if labels is None:
        labels = getattr(family, "_labelnames", ())
    name = family.name + ("_total" if family.type == "counter" else "")
    assert family.type in _KINDS.values(), family
    return Metric(name, family.type, tuple(labels), family.documentation)  # type: ignore[arg-type]
