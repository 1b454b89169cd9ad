"""How ``millrace evaluate`` prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._output import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millrace.evaluation.figures import Figures
    from millrace.evaluation.learner_ablation import Row


def as_row(lag: str, protocol: str, k: int, figures: Figures) -> dict[str, Any]:
    """A pass as a row of ``--json``; an interval is null where there are too few answers for one."""
    return {
        "lag": lag,
        "protocol": protocol,
        "k": k,
        "n": figures.n,
        "hr": figures.hr,
        "recall": figures.recall,
        "mrr": figures.mrr,
        "ndcg": figures.ndcg,
        "mpr": figures.mpr,
        "coverage": figures.coverage,
        "ci95": {name: None if math.isnan(low) else [low, high] for name, (low, high) in figures.ci95.items()},
        "recommend_us_p90": figures.recommend_us_p90,
        "update_us_p90": figures.update_us_p90,
    }


def print_figures(name: str, protocol: str, k: int, found: Sequence[tuple[str, Figures]]) -> None:
    """A table of the passes, and one of the segments of users."""

    def interval(figures: Figures, metric: str) -> str:
        return "{:.4f} [{:.4f}, {:.4f}]".format(getattr(figures, metric), *figures.ci95[metric])

    click.echo(f"{name}, {protocol}, k = {k}; in brackets 95 % intervals")
    print_table(
        (
            "lag",
            "n",
            "HR",
            "recall",
            "MRR",
            "NDCG",
            "candidate",
            "MPR",
            "coverage",
            "popularity bias",
            "recommend",
            "update",
        ),
        [
            (
                lag,
                f"{one.n:,}",
                interval(one, "hr"),
                f"{one.recall:.4f}",
                interval(one, "mrr"),
                f"{one.ndcg:.4f}",
                f"{one.found:.4f}",
                f"{one.mpr:.4f}",
                f"{one.coverage:.3f}",
                f"{one.popularity_bias:.1f}x",
                f"p90 {one.recommend_us_p90:.0f} µs",
                f"p90 {one.update_us_p90:.0f} µs",
            )
            for lag, one in found
        ],
    )
    click.echo()
    print_table(
        ("lag", "segment", "n", "HR", "MRR"),
        [
            (lag, segment, f"{n:,}", f"{hr:.4f}", f"{mrr:.4f}")
            for lag, one in found
            for segment, (n, hr, mrr) in one.segments.items()
        ],
    )


def print_learners(rows: Sequence[Row]) -> None:
    """A table of the learner ablation."""

    def interval(value: tuple[float, float, float]) -> str:
        return "{:.4f} [{:.4f}, {:.4f}]".format(*value)

    def slots(row: Row, kind: str) -> Sequence[str]:
        figures = row.slots.get(kind)
        if figures is None:
            return "", ""
        return tuple(
            " / ".join(f"{figures[before + name]:.3f}" for name in ("log_loss", "calibration_error", "bias"))
            for before in ("", "platt_")
        )

    kinds = ("sampled", "shown")
    calibrations = (f"{kind} slots{platt}: loss / ECE / bias" for kind in kinds for platt in ("", ", Platt"))
    print_table(
        ("learner", "n", "HR@20", "MRR@20", "HR gain", "MRR gain", *calibrations),
        [
            (
                row.learner,
                row.n,
                *(interval(value) for value in (row.hr, row.mrr, row.hr_gain, row.mrr_gain)),
                *(text for kind in kinds for text in slots(row, kind)),
            )
            for row in rows
        ],
    )
