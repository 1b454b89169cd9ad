"""What ranking knows of items: their state, lists of popular ones, recent sessions, and counts by circumstances."""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.ranking.context_counts import ContextCounts
from millrace.ranking.features import HalfLives
from millrace.ranking.item_table import ItemTable
from millrace.ranking.pool import CandidatePool
from millrace.ranking.popular import PopularItems
from millrace.ranking.session_index import SessionIndex
from millrace.settings import FeatureSettings, RecommenderSettings


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a process knows of items. One thread changes and reads it.

    ``pool`` is where the candidates of a request gather.
    """

    table: ItemTable
    popular: PopularItems
    sessions: SessionIndex
    contexts: ContextCounts
    pool: CandidatePool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", CandidatePool(self.table.rows_max))

    @classmethod
    def empty(cls, features: FeatureSettings, recommender: RecommenderSettings) -> Corpus:
        """One that knows nothing yet."""
        half_lives = HalfLives(features.half_life_short_ms, features.half_life_long_ms)
        table = ItemTable(recommender.mirror_items_max, features.neighbours_kept, half_lives)
        return cls(
            table,
            PopularItems(table),
            SessionIndex(table, recommender.session_runs_max, features.session_gap_ms),
            ContextCounts(recommender.context_half_life_ms),
        )
