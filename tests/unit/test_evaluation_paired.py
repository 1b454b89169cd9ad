"""Differences between passes over the same events, from the sums of their blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millrace.errors import MillraceError
from millrace.evaluation.intervals import block_bootstrap
from millrace.evaluation.paired import difference, in_blocks
from millrace.ranking.features import Floats

N = 2_000
PLACES = np.arange(0.0, 2 * N, 2)


def hits(rate: float, seed: int = 0) -> Floats:
    return (np.random.default_rng(seed).random(N) < rate).astype(np.float64)


def test_blocks_say_the_same_as_the_answers() -> None:
    values, weights = hits(0.4), np.where(PLACES < N, 1.0, 3.0)
    blocks = in_blocks(PLACES, weights, {"hr": values})
    assert len(blocks.starts) == len(blocks.weights) == 200
    assert blocks.starts[:3] == [0, 20, 40]
    assert blocks.sums["hr"].sum() / blocks.weights.sum() == pytest.approx(np.average(values, weights=weights))
    nothing = in_blocks(PLACES, weights, {"hr": np.zeros(N)})
    found = difference(blocks, nothing, "hr")
    assert found.absolute[1:] == block_bootstrap(values, weights)
    assert math.isnan(found.relative[0]), "nothing is no measure of how many times as much"


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    """Of one draw, hits at .5 hold all of those at .45."""
    better, worse = (in_blocks(PLACES, np.ones(N), {"hr": hits(rate)}) for rate in (0.5, 0.45))
    found = difference(better, worse, "hr")
    value, low, high = found.absolute
    assert value == pytest.approx((hits(0.5) - hits(0.45)).mean())
    assert 0 < low < value < high
    alone = block_bootstrap(hits(0.5))
    assert high - low < (alone[1] - alone[0]) / 2
    assert found.relative[0] == pytest.approx(hits(0.5).sum() / hits(0.45).sum() - 1)
    assert found.relative[1] < found.relative[0] < found.relative[2]


def test_other_events_are_no_pair() -> None:
    one, other = (in_blocks(places, np.ones(N), {"hr": hits(0.5)}) for places in (PLACES, PLACES + 1))
    with pytest.raises(MillraceError, match="same events"):
        difference(one, other, "hr")
