"""How ``millrace evaluate`` prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._output import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millrace.cli._evaluate_options import Passes
    from millrace.evaluation.figures import Figures, Rate
    from millrace.evaluation.learner_ablation import Row

WARNING = (
    "ranked among {negatives} items drawn at random, not among all: such figures are biased, and may order "
    "recommenders the other way round (Krichene and Rendle, 2020)"
)


def as_row(lag: str, passes: Passes, figures: Figures) -> dict[str, Any]:
    """A pass as a row of ``--json``; an interval is null where there are too few answers for one."""
    row = {
        "lag": lag,
        "protocol": passes.protocol,
        "k": passes.k,
        "n": figures.n,
        "hr": figures.hr,
        "recall": figures.recall,
        "mrr": figures.mrr,
        "ndcg": figures.ndcg,
        "mpr": figures.mpr,
        "coverage": figures.coverage,
        "ci95": {name: _bounds(*ends) for name, ends in figures.ci95.items()},
        "recommend_us_p90": figures.recommend_us_p90,
        "update_us_p90": figures.update_us_p90,
        "candidate": figures.found,
        "popularity_bias": figures.popularity_bias,
        "segments": {
            name: {"n": n, "hr": hr, "mrr": mrr, "ci95": {"hr": _bounds(*hr_ends), "mrr": _bounds(*mrr_ends)}}
            for name, (n, (hr, *hr_ends), (mrr, *mrr_ends)) in figures.segments.items()
        },
        "warm_up": passes.warm_up,
        "every": passes.every,
        "seed": passes.seed,
        "without": list(passes.without),
    }
    if passes.negatives:
        row["negatives"] = passes.negatives
        row["note"] = WARNING.format(negatives=passes.negatives)
    return row


def _bounds(low: float, high: float) -> list[float] | None:
    return None if math.isnan(low) else [low, high]


def _interval(value: Rate) -> str:
    return "{:.4f} [too few]".format(*value) if math.isnan(value[1]) else "{:.4f} [{:.4f}, {:.4f}]".format(*value)


def print_figures(name: str, passes: Passes, found: Sequence[tuple[str, Figures]]) -> None:
    """A table of the passes, and one of the segments of users."""
    every = f"; asked before one in {passes.every} eligible events, seed {passes.seed}" if passes.every > 1 else ""
    click.echo(f"{passes.of(name)}, {passes.protocol}, k = {passes.k}; in brackets 95 % intervals{every}")
    if passes.negatives:
        click.echo(WARNING.format(negatives=passes.negatives))
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
                _interval((one.hr, *one.ci95["hr"])),
                f"{one.recall:.4f}",
                _interval((one.mrr, *one.ci95["mrr"])),
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
            (lag, segment, f"{n:,}", _interval(hr), _interval(mrr))
            for lag, one in found
            for segment, (n, hr, mrr) in one.segments.items()
        ],
    )


def print_learners(rows: Sequence[Row]) -> None:
    """A table of the learner ablation."""

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
                *(_interval(value) for value in (row.hr, row.mrr, row.hr_gain, row.mrr_gain)),
                *(text for kind in kinds for text in slots(row, kind)),
            )
            for row in rows
        ],
    )
