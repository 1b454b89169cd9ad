"""Is a trained version fit to be a challenger? From values only (design, section 7).

============ ======================================================================================================
gate         passed if
============ ======================================================================================================
enough_data  the window holds so many examples and clicks, and a fair part of them is newest; after a change of the
             world, what came since
loads        its files, as they arrived at the registry, load in a fresh process as a recommender loads them, and score
             logged slots as the trained model does
golden       it answers every golden request as it should (``millrace.training.golden``)
better       the lower bound of what it gains over the champion on the newest part of the window is above what is asked
segments     in no segment of users with enough slots it is surely worse than the champion
============ ======================================================================================================

Gains are of log loss, both models starting from their state before the newest part and learning as they go
(``millrace.training.measure``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from millrace.registry.gates import Gate
from millrace.settings import TrainingSettings
from millrace.training.measure import ALL, Gain, Measured

SCORES_EQUAL = 1e-6
"""As scores of the recommender are held to those of the learner (``millrace.ranking.model``)."""
NEWEST_CLICKS_MIN = 0.1
"""Share of the clicks asked for that the newest part must have itself."""
LEVEL = 0.95


def enough_data(
    examples: int, clicks: int, newest_clicks: int, settings: TrainingSettings, since_change: bool = False
) -> Gate:
    """Gate ``enough_data``; ``since_change``: the numbers are of what came since the world changed."""
    newest_min = NEWEST_CLICKS_MIN * settings.clicks_min
    asked = {
        "examples": (examples, settings.examples_min),
        "clicks": (clicks, settings.clicks_min),
        "newest_clicks": (newest_clicks, newest_min),
    }
    figures = {name: float(number) for name, (number, _) in asked.items()}
    figures |= {f"{name}_min": float(least) for name, (_, least) in asked.items()}
    reason = (
        f"{examples:,} examples{' since the change' * since_change} (at least {settings.examples_min:,}) with "
        f"{clicks:,} clicks (at least {settings.clicks_min:,}), {newest_clicks:,} of them newest (at least "
        f"{newest_min:,.0f})"
    )
    return Gate("enough_data", all(number >= least for number, least in asked.values()), reason, figures)


def probed(output: str, expected: Sequence[float]) -> list[Gate]:
    """Gates ``loads`` and ``golden``, from what a process that loaded the version printed.

    Parameters
    ----------
    expected
        Scores of the same rows by the trained model.
    """
    try:
        answer: Any = json.loads(output)
    except ValueError:
        answer = {"unusable": f"the process that loaded it said {output[-200:]!r}"}
    if "unusable" in answer:
        reason = str(answer["unusable"])
        return [Gate("loads", False, reason), Gate("golden", False, "it was not loaded")]
    given = np.array(answer["scores"], dtype=np.float64)
    same_size = len(given) == len(expected)
    away = float(np.abs(given - np.array(expected)).max(initial=0.0)) if same_size else np.inf
    problems = [str(one) for one in answer["problems"]]
    return [
        Gate(
            "loads",
            away <= SCORES_EQUAL,
            f"{len(expected)} logged slots score the same within {away:.1e} (at most {SCORES_EQUAL:g})",
            {"rows": float(len(expected)), "largest_difference": away},
        ),
        Gate("golden", not problems, "; ".join(problems) or "all as they should be", {"wrong": float(len(problems))}),
    ]


def better(measured: Measured, new: str, against: str, settings: TrainingSettings, seed: int, what: str) -> Gate:
    """Gate ``better``; ``what`` names for people whom it is compared with."""
    gain = measured.gain(new, against, ALL, LEVEL, seed)
    asked = settings.gain_min
    figures = {"gain": gain.value, "low": gain.low, "high": gain.high, "gain_min": asked, "slots": float(gain.slots)}
    reason = f"gains {_said(gain)} over {what} on {gain.slots:,} slots (more than {asked:g} for sure)"
    return Gate("better", gain.low > asked, reason, figures)  # NaN is not above anything


def segments(measured: Measured, new: str, against: str, settings: TrainingSettings, seed: int) -> Gate:
    """Gate ``segments``: with all of them together, a version that is worse in none fails in one case of twenty."""
    groups = [
        group
        for group in measured.groups
        if group != ALL and measured.slots[group].sum() >= settings.segment_examples_min
    ]
    level = 1 - (1 - LEVEL) / max(len(groups), 1)
    gains = {group: measured.gain(new, against, group, level, seed) for group in groups}
    worse = {group: gain for group, gain in gains.items() if gain.high < 0}
    figures: dict[str, float] = {}
    for group, gain in gains.items():
        figures |= {f"{group}.gain": gain.value, f"{group}.low": gain.low, f"{group}.high": gain.high}
    if worse:
        reason = "; ".join(f"worse in {group}: {_said(gain)}" for group, gain in worse.items())
    else:
        reason = f"surely worse in none of {', '.join(groups)}" if groups else "none has enough slots to tell"
    return Gate("segments", not worse, reason, figures)


def _said(gain: Gain) -> str:
    return f"{gain.value:.5f} nats a slot ({gain.low:.5f} to {gain.high:.5f})"
