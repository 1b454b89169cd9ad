"""What the document says whatever comes out, and how it writes figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

HEAD = """\
# What freshness is worth, causally

Written by `millrace bench freshness-value` from `benchmarks/results/freshness-value.json`; do not edit it by hand.

Logs tell what people clicked, not what they would have clicked had they been shown something else. In a made-up shop
both can be seen: the same visitors with the same coins come to the same shop, once for each way to fill its pages.

    millrace bench freshness-value                          # both worlds, without servers
    millrace bench freshness-value --world shop --seed 8    # another shop of the same kind; is added below
    python -m benchmarks.freshness_value                    # this document anew, nothing is measured

(`millrace simulate` runs the same people against the real pipeline by the clock; these months need none.)

## What is compared

| arm | features of items and users | parameters |
|---|---|---|
| live | at once | at once |
| hourly, nightly, weekly | as of the last full hour, midnight (UTC), week | the same |
| nightly, session known | items as nightly; the visitor's own events at once, as if the request told | as nightly |
| popularity | the most clicked items, at once (half-life one hour) | none |

- Everything that decides is production's: `ranking.rank` on the features that a property test holds equal to Redis,
  labels from `PartitionJoiner` with its window of half an hour, `OnlineRanker` from the first ranker on. A lag moves
  the moment of learning and nothing else.
- **Each arm has the shop to itself.** A log shared by all arms would let a nightly arm learn from what the live arm
  found out. Here an arm learns from its own visitors only, as if it alone had been deployed. Who comes, when, and with
  which coins depends on the seed alone, so that differences are paired by shopper.
- What is on sale is known at once in every arm: no shop offers what it does not have. That helps the late arms: items
  that are new are candidates, without any history.
- Intervals are 95 %, by shopper (delta method; of days: bootstrap of shoppers). They tell what other shoppers would
  have done in this world, not what happens in another world.
- Click-through: clicks for each slot shown. Conversion: purchases for each visit.
"""
WORLD_PROSE = """\
## The worlds

The click model is one (position bias, taste, need, quality, novelty, familiarity: `millrace/simulation/clicks.py`), and
so is all code; the worlds differ in settings (`millrace/simulation/worlds.py`). At the shift every category's liking
goes to another category and half of the dimensions of style turn round, for everyone at once; habits stay, so that what
can be reached is about what could be before.

- **news** has the clock of a news site: an item is gone after a day or two, and with it whatever an arm believed of it.
  A visitor comes every fourth day. Few read an article twice.
- **shop** keeps its items for months, and a shopper comes daily: there is much to know about both, and what of it is
  about tastes is wrong after the shift. Its habits are those of `millrace simulate`.

How they were chosen: news by the clock of Globo.com (below); how fast tastes drift (once round in 120 days) is a
choice, the clicks do not tell. The shop was settled on seed 11: its sizes are the first that were tried, then the
warm-up was made a fortnight because weekly learning still got better in its second week. For popularity half-lives from
an hour to a fortnight were tried there: none got more clicks over the month than the hour, so it stays. The shop of
seed 7 was looked at after that, and nothing was changed. Another seed is another world.
"""
READ_RESULT = """\
All {days} days after the warm-up. *Live against it*: how much higher live is, paired by shopper.
"""
READ_RECOVERY = """\
## After the shift

The three days after the shift and all days after it, against the arm's own days before it. *Lowest 3 days before*: the
lowest mean of three days in a row before the shift, against all of them; what happens without any shift. *Back after*:
days until the mean of the last three is at 95 % of the level before. Three is the least that this can say. An arm that
knew little has little to lose: read it beside the level. The intervals know that there could be other shoppers, not
that there could be other items: where a few items carry a day's clicks, as in news, they are too narrow for changes in
time.
"""
ARMS = {
    "live": "live",
    "hourly": "hourly",
    "nightly": "nightly",
    "nightly_session_known": "nightly, session known",
    "weekly": "weekly",
    "popularity": "popularity",
}
"""What the tables call each arm."""
CLOCK = """\
## The clock of Globo.com

The news world's clock is set by the clicks of Globo.com, ten days of them; ours are the live arm's, ten days after the
warm-up. It is a small shop with the clock of a news site, no copy of one: the sizes are not set, and the weight of
quality goes no further because with more of it pages are clicked too often and visits get too long. The shop is set by
no data.
"""
TITLES = {"click_through": "click-through", "conversion": "conversion"}
MOVED_BY: Mapping[str, tuple[str, str]] = {
    "two_clicks": ("visits with two or more clicks: share with exactly two", "not set; quality of the items moves it"),
    "hours_median": (
        "hours from an item's first click to a click, median (first on days 3-6, within 96 h)",
        "lifetime",
    ),
    "hours_p90": ("the same, 90th percentile", "lifetime"),
    "visits": ("visits with a click of a visitor in ten days", "shoppers, visits a day"),
    "most_active": ("share of the visits by the most active tenth of the visitors", "activity, 1/r^0.6"),
    "again": (
        "share of the clicks that are on what the visitor had clicked before",
        "familiarity; the rest is searching",
    ),
    "most_clicked": ("share of a day's clicks on the most clicked tenth of the clicked items", "quality"),
    "clicks_of_item": ("clicks of an item", "not set: size"),
}
"""Figures of ``clock.clock``: what each is, and which setting moves it."""


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table with an empty line after it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def listed(names: Sequence[str]) -> str:
    """``a; b and c``: names may hold commas."""
    return " and ".join(part for part in ("; ".join(names[:-1]), names[-1]) if part)


def share(value: float) -> str:
    """A change in percent."""
    return f"{_whole(value)} %"


def signed(ends: Sequence[float]) -> str:
    """A change in percent, with its interval."""
    value, low, high = ends
    return f"{share(value)} ({_whole(low)} to {_whole(high)})"


def _whole(value: float) -> str:
    """Signed whole percent; nothing is +0."""
    text = f"{100 * value:+.0f}"
    return "+0" if text == "-0" else text


def rate(ends: Sequence[float]) -> str:
    """A figure in percent, with its interval."""
    value, low, high = (100 * end for end in ends)
    digits = 2 if value < 10 else 1
    return f"{value:.{digits}f} % ({low:.{digits}f} to {high:.{digits}f})"
