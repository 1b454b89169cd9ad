"""What the recommender answers, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import AnswerStatus, CandidateSource, Fallback
from millrace.v1.recommendation_service_pb2 import RecommendResponse


@dataclass(frozen=True, slots=True)
class KnownPosition:
    """The newest interaction of the user that the answer knew: where its record stands on the log."""

    topic: str
    topic_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One recommended item.

    Attributes
    ----------
    score
        Estimated probability of a click, from 0 to 1.
    sources
        The generators that proposed it, the most telling first, for example ``("neighbours", "trending_short")``.
    features
        As scored, in the order of ``Recommendation.feature_names``; empty unless asked to explain.
    """

    item_id: str
    score: float
    sources: tuple[str, ...]
    features: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An answer.

    Attributes
    ----------
    request_id
        Put it into the interactions that the answer leads to.
    items
        The best first.
    model_version
        Version in the registry; empty if no model ranked.
    known
        None if the recommender knows no interaction of this user.
    status
        ``ok`` or ``degraded``.
    fallback
        ``none``, or why it is not the model's own ranking, for example ``unknown_user``.
    served_at_ms
        Serving time, Unix milliseconds.
    serve_micros
        Time inside the recommender, microseconds.
    """

    request_id: str
    items: tuple[RecommendedItem, ...]
    model_name: str
    model_version: str
    feature_schema: str
    feature_names: tuple[str, ...]
    known: KnownPosition | None
    status: str
    fallback: str
    served_at_ms: int
    experiment_id: str
    arm: str
    serve_micros: int

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The items' ids, the best first."""
        return tuple(item.item_id for item in self.items)


_SOURCES = {value: name.removeprefix("CANDIDATE_SOURCE_").lower() for name, value in CandidateSource.items()}
_STATUSES = {value: name.removeprefix("ANSWER_STATUS_").lower() for name, value in AnswerStatus.items()}
_FALLBACKS = {value: name.removeprefix("FALLBACK_").lower() for name, value in Fallback.items()}


def recommendation(answer: RecommendResponse) -> Recommendation:
    """The values of a response. A name that this client does not know yet is given as its number."""
    return Recommendation(
        request_id=answer.request_id,
        items=tuple(
            RecommendedItem(
                item.item_id,
                item.score,
                tuple(_SOURCES.get(source, str(source)) for source in item.sources),
                tuple(item.features),
            )
            for item in answer.items
        ),
        model_name=answer.model_name,
        model_version=answer.model_version,
        feature_schema=answer.feature_schema,
        feature_names=tuple(answer.feature_names),
        known=_position(answer.known) if answer.HasField("known") else None,
        status=_STATUSES.get(answer.status, str(answer.status)),
        fallback=_FALLBACKS.get(answer.fallback, str(answer.fallback)),
        served_at_ms=answer.served_at_ms,
        experiment_id=answer.experiment_id,
        arm=answer.arm,
        serve_micros=answer.serve_micros,
    )


def _position(known: Position) -> KnownPosition:
    return KnownPosition(known.topic, known.topic_id, known.partition, known.offset)
