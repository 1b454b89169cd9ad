"""The parameters that serve, as the learner publishes them; and what each feature adds to an item's score."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millrace.events.build import now_ms
from millrace.settings import MINUTE_MS, Settings
from millrace.stream.feed import Feed
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import MODEL_UPDATES
from millrace.v1.model_pb2 import ModelUpdate
from services.gateway.console.watched import Watched
from services.gateway.console.words import label_of

if TYPE_CHECKING:
    from millrace.learning.serving import ServedLine
    from millrace.ranking.model import RankingModel

# A snapshot comes every few seconds while something is learned.
_BACK_MS = 2 * MINUTE_MS
_CHUNK = 20
_WAIT_S = 5.0
# Scores are float32, and parameters may be an update newer than those that ranked.
_AGREES = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """What a feature, with all that the model makes of it, adds to the log-odds of a click."""

    name: str
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Explained:
    """Why an item has its score.

    Attributes
    ----------
    parts
        The largest first; with ``rest`` and ``base`` they add up to the log-odds.
    agrees
        Whether these parameters give the score that the item has.
    """

    parts: Sequence[Part]
    rest: float
    base: float
    agrees: bool


class Weights:
    """Follows the parameters of one model while somebody looks. To be made and used on one event loop."""

    def __init__(self, settings: Settings, model_name: str) -> None:
        self._settings, self._model_name = settings, model_name
        self._lines: Any = None
        self._reigns: set[str] = set()
        self._feeds: list[Feed] = []
        self.watched = Watched(self._start, self._stop)

    def line(self, reign_id: str) -> ServedLine | None:
        """The newest parameters of a reign; None if nothing is published of it."""
        found: ServedLine | None = self._lines.of(reign_id) if self._lines is not None else None
        return found

    async def _start(self) -> None:
        # What expands features is compiled when it is imported first: half a second, not on the event loop.
        serving = await asyncio.to_thread(_serving)
        for since_ms in (now_ms() - _BACK_MS, None):
            self._lines = serving.ServedLines(self._model_name)
            self._reigns.clear()
            feed = Feed("console-weights", lambda since_ms=since_ms: self._reader(since_ms), _CHUNK, self._take)  # type: ignore[misc]
            feed.start()
            self._feeds.append(feed)
            try:
                async with asyncio.timeout(_WAIT_S):
                    await feed.caught_up.wait()
            except TimeoutError:
                return
            if self._reigns or since_ms is None:
                return
            # The learner was idle: what it published last stands further back.
            await self._stop()

    def _reader(self, since_ms: int | None) -> TopicReader:
        start = "beginning" if since_ms is None else since_ms
        return TopicReader(self._settings.kafka, [MODEL_UPDATES], start, self._settings.stream)  # type: ignore[arg-type]

    async def _stop(self) -> None:
        feeds, self._feeds = self._feeds, []
        await asyncio.gather(*(feed.close() for feed in feeds))

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record.message, ModelUpdate):
                self._lines.apply(record.message)
                if record.message.HasField("snapshot"):
                    self._reigns.add(record.message.snapshot.reign_id)

    async def close(self) -> None:
        """Stop."""
        await self.watched.close()


def _serving() -> Any:
    from millrace.learning import serving

    return serving


def explain(model: RankingModel, features: Sequence[float], score: float, most: int = 6) -> Explained:
    """What each feature adds to an item's log-odds, beside an item that is average in everything.

    Parameters
    ----------
    features
        As scored, in the order of the model's feature names.
    most
        Parts that are told apart; the others are the rest.
    """
    columns = _columns(model, features)
    deviations = np.sqrt(model.variances)
    slopes = np.divide(model.weights, deviations, out=np.zeros(len(columns)), where=deviations > 0)
    added: dict[str, float] = {}
    for column, value in zip(model.columns, (slopes * (columns - model.means)).tolist(), strict=True):
        # A bend in a feature's effect is the feature's.
        name = column.partition(">")[0]
        added[name] = added.get(name, 0.0) + value
    order = sorted(added, key=lambda name: -abs(added[name]))
    parts = [Part(name, label_of(name), added[name]) for name in order[:most] if added[name]]
    rest = sum(added[name] for name in order[most:])
    log_odds = model.intercept + sum(added.values())
    probability = 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
    return Explained(parts, rest, model.intercept, bool(abs(probability - score) <= _AGREES * max(score, 0.01)))


def _columns(model: RankingModel, features: Sequence[float]) -> npt.NDArray[np.float64]:
    """The model's columns of an item, as its ``expand`` makes them: that is compiled when it is first called."""
    from millrace.ranking.terms import Hinge

    row = dict(zip(model.feature_names, features, strict=True))
    terms = [
        max(row[term.feature] - term.knot, 0.0)
        if isinstance(term, Hinge)
        else (row[term.first] - term.first_centre) * (row[term.second] - term.second_centre)
        for term in model.terms
    ]
    return np.array([*features, *terms])
