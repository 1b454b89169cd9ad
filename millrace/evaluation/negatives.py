"""Ranks among a few items drawn at random: on request only, to compare with papers that report such figures.

They are not those of the whole catalogue and may order two recommenders the other way round: almost any recommender
ranks the right item above a hundred random ones. Krichene and Rendle (2020): On sampled metrics for item
recommendation.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from millrace.evaluation.ablation import COMPLETE, Ablation
from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.questions import Questioner
from millrace.evaluation.stream import Event
from millrace.ranking.model import RankingModel
from millrace.settings import Settings


class SampledRanks:
    """Ranks the item that came among others, each known item equally likely.

    What is drawn depends on the seed and the event's place alone: a pass that goes on draws what it would have drawn.
    """

    def __init__(
        self, memory: MemoryFeatures, settings: Settings, negatives: int, seed: int, ablation: Ablation = COMPLETE
    ) -> None:
        self._memory = memory
        self._negatives = negatives
        self._seed = seed
        random = np.random.default_rng(seed)
        # A questioner of its own: what the pass itself draws must not depend on whether ranks are sampled.
        self._questioner = Questioner(memory, settings.features, settings.recommender, negatives + 1, random, ablation)

    def rank(self, place: int, event: Event, without: Collection[str], model: RankingModel) -> tuple[int, int]:
        """Rank of the event's item (``MISS`` if nobody knows it), and how many items were ranked."""
        table, random = self._memory.table, np.random.default_rng((self._seed, place))
        known = table.rows_used - 1
        # As many more as may have to be left out again. Row 0 is nobody's.
        rows = 1 + random.choice(known, min(self._negatives + len(without) + 1, known), replace=False) if known else ()
        items = [item for row in rows if (item := table.id_of(row)) != event.item_id and item not in without]
        others = items[: self._negatives]
        question = self._questioner.before(event, among=[event.item_id, *others])
        return question.rank(model.score(question.features)), len(others) + 1
