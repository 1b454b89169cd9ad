"""What is measured: each row is a command of ``millrace evaluate``; beside it what others published, floor and goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from millrace.evaluation.parts import LABELS, PARTS

DATA = "$MILLRACE_DATA"
"""Stands in commands for the folder of the data sets."""

_ML_100K = "--dataset ml-100k --protocol flurs -k 10"
_SERENADE = (
    f"--train {DATA}/serenade-toy/train.txt --test {DATA}/serenade-toy/test.txt --format tsv --time-unit s "
    "--map user=SessionId,item=ItemId,time=Time,session=SessionId --protocol serenade"
)
_DIGINETICA = f"--events {DATA}/diginetica --format sessions --protocol ader"
_GLOBO = "--dataset globo --warm-up 60000"
TUNED = ".tuned"
_TUNE = "--every 5 --budget 24"
# Every fiftieth of the 630,000 questions of diginetica are as many as every fifth of the others'.
_TUNE_LARGE = "--every 50 --budget 24"


@dataclass(frozen=True, slots=True)
class Run:
    """A row.

    Attributes
    ----------
    arguments
        Of ``millrace evaluate``.
    tune
        Further ones of ``millrace tune``, which chooses this row's settings on its past; empty: the settings in force.
    """

    name: str
    title: str
    arguments: str
    tune: str = ""

    @property
    def command(self) -> str:
        """What a person would type to get the same figures."""
        evaluate = f"millrace evaluate {self.arguments}"
        return f"millrace tune {self.arguments} {self.tune} >> .env && {evaluate}" if self.tune else evaluate


@dataclass(frozen=True, slots=True)
class Aim:
    """What a metric of a row is held to, as fractions of 1; None where nothing was said."""

    metric: str
    published: str
    floor: float | None
    goal: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """The same run at several learning lags, live first."""

    name: str
    title: str
    arguments: str
    lags: Sequence[str]

    def runs(self) -> Iterator[Run]:
        """A row for each lag."""
        for lag in self.lags:
            yield Run(f"{self.name}.lag.{lag}", f"{self.title}, lag {lag}", f"{self.arguments} --lag {lag}")

    def rows(self) -> list[str]:
        """Names of the rows."""
        return [run.name for run in self.runs()]


@dataclass(frozen=True, slots=True)
class Without:
    """The same run with everything, and without each part of the recommender that the data has something for."""

    name: str
    title: str
    arguments: str
    labelled: bool = False
    """Whether the data has a catalogue that labels items."""

    def runs(self) -> Iterator[Run]:
        """A row for everything, then one for each part."""
        yield Run(self.everything, f"{self.title}, with everything", self.arguments)
        for part in self.parts:
            yield Run(self.row(part), f"{self.title}, without {part}", f"{self.arguments} --without {part}")

    @property
    def parts(self) -> list[str]:
        """Names of the parts."""
        return [part for part in PARTS if self.labelled or part != LABELS]

    @property
    def everything(self) -> str:
        """Name of the row without nothing."""
        return self.row("nothing")

    def row(self, part: str) -> str:
        """Name of the row without a part."""
        return f"{self.name}.without.{part}"


HEADLINES: Sequence[Run] = (
    Run("ml-100k.flurs", "ml-100k, flurs", _ML_100K),
    Run("serenade", "serenade-toy, serenade", _SERENADE),
    Run("globo.first-300k", "globo, first 300,000 clicks", f"{_GLOBO} --limit 300000"),
    Run("diginetica.weekly", "diginetica, ader, learning weekly", f"{_DIGINETICA} --lag period"),
    Run("diginetica.live", "diginetica, ader, learning live", _DIGINETICA),
    Run("globo.whole", "globo, whole file", _GLOBO),
)
"""Every eligible event is asked for."""

SERIES: Sequence[Series] = (
    Series(
        "ml-latest-small",
        "ml-latest-small",
        "--dataset ml-latest-small --protocol next-item --warm-up 10000 --every 5",
        ("0", "1h", "6h", "1d", "7d", "30d"),
    ),
    Series(
        "globo",
        "globo, first 600,000 clicks",
        f"{_GLOBO} --limit 600000 --every 5",
        ("0", "1m", "10m", "1h", "6h", "24h"),
    ),
    Series(
        "diginetica",
        "diginetica",
        f"{_DIGINETICA} --every 5",
        ("0", "100sessions", "1000sessions", "10000sessions", "period"),
    ),
)

ABLATIONS: Sequence[Without] = (
    Without("ml-100k", "ml-100k, flurs", _ML_100K, labelled=True),
    Without("serenade", "serenade-toy, serenade", _SERENADE),
    Without("globo", "globo, first 300,000 clicks", f"{_GLOBO} --limit 300000 --every 5"),
    Without("diginetica", "diginetica, ader, learning weekly", f"{_DIGINETICA} --lag period --every 10"),
)

# The whole file of globo would choose the same settings as its first 300,000 clicks: the past is the same.
_TUNABLE = ("ml-100k.flurs", "serenade", "globo.first-300k", "diginetica.weekly", "diginetica.live")

AIMS: Mapping[str, Sequence[Aim]] = {
    "ml-100k.flurs": (
        Aim("recall", "popularity .1054, incremental MF .0232, incremental FM .0335 (takuti)", 0.18, 0.22),
    ),
    "serenade": (
        Aim("mrr", "VMIS-kNN .3277, tuned .3401 (bolcom/serenade)", 0.335, 0.36),
        Aim("hr", "VMIS-kNN .6402 (bolcom/serenade)", None, 0.68),
    ),
    "diginetica.weekly": (
        Aim("recall", "fine-tuned SASRec .4728, ADER .5021 (RecSys 2020)", 0.505, 0.53),
        Aim("mrr", "fine-tuned SASRec .1601, ADER .1732 (RecSys 2020)", 0.185, 0.20),
    ),
    "diginetica.live": (Aim("recall", "", 0.522, 0.55), Aim("mrr", "", 0.19, 0.21)),
    "globo.first-300k": (Aim("hr", "", 0.75, 0.79), Aim("mrr", "", 0.33, 0.36)),
    "globo.whole": (Aim("hr", "", 0.70, 0.76), Aim("mrr", "", 0.28, 0.34)),
}
"""From issue 5; a row with tuned settings is held to the same."""

RECOMMEND_US = Aim("recommend_us_p90", "VMIS-kNN in Rust 66 µs", 500.0, 150.0)
"""Of every row; less is better."""


def all_runs() -> list[Run]:
    """Every row, quick ones first."""
    tuned = [
        Run(
            run.name + TUNED,
            f"{run.title}, settings tuned on its past",
            run.arguments,
            _TUNE_LARGE if run.name.startswith("diginetica") else _TUNE,
        )
        for run in HEADLINES
        if run.name in _TUNABLE
    ]
    without = [run for ablation in ABLATIONS for run in ablation.runs()]
    late = [run for series in SERIES[1:] for run in series.runs()]
    return [*HEADLINES[:3], *SERIES[0].runs(), *tuned, *without, *late, *HEADLINES[3:]]


LIVE_AND_WEEKLY = [("diginetica.live" + end, "diginetica.weekly" + end) for end in ("", TUNED)]


def pairs() -> list[tuple[str, str]]:
    """Rows beside each other, over the same events: which is expected to be better, and than which."""
    found = list(LIVE_AND_WEEKLY)
    for series in SERIES:
        live, *late = series.rows()
        found += [(live, one) for one in late]
    for ablation in ABLATIONS:
        found += [(ablation.everything, ablation.row(part)) for part in ablation.parts]
    return found


def chosen(runs: Sequence[Run], only: Sequence[str]) -> list[Run]:
    """The rows whose names match one of the patterns, or begin with it; all without any."""
    return [run for run in runs if not only or any(fnmatch(run.name, f"{pattern}*") for pattern in only)]
