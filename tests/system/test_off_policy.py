"""Off-policy estimates on the Open Bandit sample: a policy's worth from the other one's log, beside what it earned.

Y. Saito et al., "Open Bandit Dataset and Pipeline" (2021). The sample has some 50 clicks a file: it tests estimators,
and says nothing about which policy is better.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass

import numpy as np
import pytest

from millrace.experiments.off_policy import Estimate, Floats, Logged, doubly_robust, ipw, snips
from millrace.settings import RecommenderClientSettings

pytestmark = pytest.mark.system

CAMPAIGNS = {"men": 34, "women": 46}
POSITIONS = 3


@dataclass(frozen=True)
class Log:
    """What a policy showed: places in a table of item and position, clicks, propensities."""

    items: int
    places: np.ndarray[tuple[int], np.dtype[np.int64]]
    clicks: Floats
    propensities: Floats

    def rates(self, rows: slice) -> Floats:
        """Click rate of each item from some rows, shrunk to that of all (20 showings in advance)."""
        item = self.places[rows] // POSITIONS
        clicked = np.bincount(item, self.clicks[rows], self.items)
        rates: Floats = (clicked + 20 * self.clicks[rows].mean()) / (np.bincount(item, minlength=self.items) + 20)
        return rates


def read(policy: str, campaign: str) -> Log:
    path = RecommenderClientSettings().data / "open-bandit-small" / f"{policy}_{campaign}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = [int(row["item_id"]) * POSITIONS + int(row["position"]) - 1 for row in rows]
    return Log(
        CAMPAIGNS[campaign],
        np.array(places),
        np.array([float(row["click"]) for row in rows]),
        np.array([float(row["propensity_score"]) for row in rows]),
    )


def policy_of(log: Log) -> Floats:
    """Probability of each item in each position: as often as it was shown there (the policies see no context)."""
    shown = np.bincount(log.places, minlength=log.items * POSITIONS).reshape(log.items, POSITIONS)
    shares: Floats = shown / shown.sum(axis=0)
    return shares.reshape(-1)


def estimates(log: Log, wanted: Floats) -> list[Estimate]:
    """Of a policy (probability of each place) from a log; the model of rewards comes from the other half of it."""
    logged = Logged(log.clicks, log.propensities, wanted[log.places])
    n = len(log.clicks)
    expected, of_policy = np.empty(n), np.empty(n)
    by_position = wanted.reshape(log.items, POSITIONS)
    for rows, others in ((slice(0, n // 2), slice(n // 2, n)), (slice(n // 2, n), slice(0, n // 2))):
        rates = log.rates(others)
        expected[rows] = rates[log.places[rows] // POSITIONS]
        of_policy[rows] = (rates @ by_position)[log.places[rows] % POSITIONS]
    return [ipw(logged), snips(logged), doubly_robust(logged, expected, of_policy)]


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_bts_from_random(campaign: str) -> None:
    random, bts = read("random", campaign), read("bts", campaign)
    assert len(random.clicks) == len(bts.clicks) == 10_000
    assert random.propensities == pytest.approx(1 / CAMPAIGNS[campaign])
    earned = float(bts.clicks.mean())
    found = estimates(random, policy_of(bts))
    for one in found:
        assert one.refusal == ""
        assert one.low <= earned <= one.high
        assert 500 < one.effective < 10_000
    # A model of rewards and normalisation narrow the interval, or cost nothing worth speaking of.
    widths = [one.high - one.low for one in found]
    assert max(widths[1:]) < 1.1 * widths[0]


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_the_same_policy_is_worth_what_it_earned(campaign: str) -> None:
    random = read("random", campaign)
    found = estimates(random, np.full(CAMPAIGNS[campaign] * POSITIONS, 1 / CAMPAIGNS[campaign]))
    assert found[0].value == pytest.approx(random.clicks.mean())
    assert found[0].effective == pytest.approx(10_000)


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_a_policy_that_shows_one_item_only_is_hardly_logged(campaign: str) -> None:
    """A hundredth of what bts showed would be needed, and there is less where it had given the item up."""
    bts = read("bts", campaign)
    least = int(np.argmin(policy_of(bts).reshape(-1, POSITIONS).sum(axis=1)))
    wanted = np.zeros(CAMPAIGNS[campaign] * POSITIONS)
    wanted[least * POSITIONS : (least + 1) * POSITIONS] = 1.0
    for one in estimates(bts, wanted):
        assert "it does what was hardly ever logged" in one.refusal
