"""What the recommender's errors become for the caller, and answers as values."""

from __future__ import annotations

import grpc
import pytest

from millrace.client.answers import KnownPosition, recommendation
from millrace.client.channel import explained
from millrace.client.errors import RecommenderUnavailable
from millrace.errors import InvalidField
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import AnswerStatus, CandidateSource, Fallback
from millrace.v1.recommendation_service_pb2 import RecommendedItem, RecommendResponse


class Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


def test_a_refused_field_is_the_same_error_as_before_sending() -> None:
    original = InvalidField("requests[2].k", "0", "1 to 200")
    error = explained(Failure(grpc.StatusCode.INVALID_ARGUMENT, str(original)), "t:1", 1.0)
    assert isinstance(error, InvalidField)
    assert (error.field, error.problem, error.allowed) == ("requests[2].k", "0", "1 to 200")


def test_a_refusal_in_other_words_keeps_them() -> None:
    error = explained(Failure(grpc.StatusCode.INVALID_ARGUMENT, "no"), "t:1", 1.0)
    assert isinstance(error, InvalidField)
    assert "no" in str(error)


@pytest.mark.parametrize(
    ("code", "details", "says"),
    [
        (grpc.StatusCode.UNAVAILABLE, "refused", "recommender at t:1: refused (UNAVAILABLE)"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "x", "recommender at t:1: no answer within 0.5 s (DEADLINE_EXCEEDED)"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, "recommender at t:1:  (RESOURCE_EXHAUSTED)"),
    ],
)
def test_other_errors_name_the_target(code: grpc.StatusCode, details: str | None, says: str) -> None:
    error = explained(Failure(code, details), "t:1", 0.5)
    assert isinstance(error, RecommenderUnavailable)
    assert str(error) == says
    assert (error.target, error.code) == ("t:1", code.name)


def test_an_answer_as_values() -> None:
    answer = recommendation(
        RecommendResponse(
            request_id="r",
            items=[
                RecommendedItem(
                    item_id="i",
                    score=0.5,
                    sources=[
                        CandidateSource.CANDIDATE_SOURCE_NEIGHBOURS,
                        CandidateSource.CANDIDATE_SOURCE_TRENDING_SHORT,
                        99,  # type: ignore[list-item]  # of a newer service
                    ],
                    features=[1.0, 2.0],
                )
            ],
            feature_names=["a", "b"],
            known=Position(topic="interactions", topic_id="x", partition=2, offset=7),
            status=AnswerStatus.ANSWER_STATUS_OK,
            fallback=Fallback.FALLBACK_UNKNOWN_USER,
        )
    )
    assert answer.item_ids == ("i",)
    assert answer.items[0].sources == ("neighbours", "trending_short", "99")
    assert answer.items[0].features == (1.0, 2.0)
    assert answer.known == KnownPosition("interactions", "x", 2, 7)
    assert (answer.status, answer.fallback) == ("ok", "unknown_user")
    assert recommendation(RecommendResponse()).known is None
