"""A request whose deadline has passed is not worked on, and counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from millrace.features.user_state import UserState
from millrace.ranking.corpus import Corpus
from millrace.settings import FeatureSettings, RecommenderSettings
from millrace.v1.impression_pb2 import AnswerStatus, Impression
from millrace.v1.recommendation_service_pb2 import RecommendBatchRequest, RecommendRequest
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from services.recommender.answering import Answering
from services.recommender.server import _handlers
from services.recommender.service import RecommendationService

DEADLINE_MS = 20
PATIENCE_S = 60.0


@dataclass
class Around:
    """What the service stands on: nobody is known, nothing ranks, and what is read comes after the deadline."""

    logged: list[Impression] = field(default_factory=list)
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    current: None = None

    async def read(self, user_id: str, timeout_s: float, promptly: bool) -> UserState | None:
        del user_id, timeout_s, promptly
        await asyncio.sleep(2 * DEADLINE_MS / 1000)
        return None

    def assign(self, user_id: str, champion: None) -> tuple[None, None]:
        del user_id, champion
        return None, None

    def send(self, impression: Impression) -> None:
        self.logged.append(impression)


def counted(method: str) -> float:
    labels = {"method": method, "code": "DEADLINE_EXCEEDED"}
    return REGISTRY.get_sample_value("millrace_recommender_requests_total", labels) or 0.0


def ranked() -> float:
    return REGISTRY.get_sample_value("millrace_recommender_candidates_count") or 0.0


async def test_it_ends_with_the_status_that_says_so() -> None:
    settings = RecommenderSettings(deadline_ms=DEADLINE_MS)
    features = FeatureSettings()
    parts: Any = Around()
    answering = Answering(
        settings, features.user_half_life_ms, Corpus.empty(features, settings), "interactions", np.random.default_rng(1)
    )
    service = RecommendationService(settings, answering, parts, parts, parts, parts, parts, lambda: "")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = cast("Any", RecommendationServiceStub(channel))
            request = RecommendRequest(user_id="ann", k=5)
            before, before_ranked = counted("Recommend"), ranked()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Recommend(request, timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.details() == "the deadline passed before the answer was ready"
            assert (counted("Recommend"), ranked()) == (before + 1, before_ranked)
            assert [one.status for one in parts.logged] == [AnswerStatus.ANSWER_STATUS_FAILED]

            before = counted("RecommendBatch")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.RecommendBatch(RecommendBatchRequest(requests=[request] * 3), timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert (counted("RecommendBatch"), ranked()) == (before + 1, before_ranked)
    finally:
        await server.stop(None)
