"""The asyncio form of ``RecommenderClient``."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import grpc

from millrace.client.answers import Recommendation, recommendation
from millrace.client.channel import OPTIONS, explained
from millrace.events import build
from millrace.events.build import RequestFields
from millrace.events.rules import check_recommend_batch, check_recommend_request
from millrace.settings import RecommenderClientSettings
from millrace.stream.tracing import outgoing_metadata
from millrace.v1.recommendation_service_pb2 import RecommendBatchRequest, RecommendRequest
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub


class AsyncRecommenderClient:
    """Asks the recommender over gRPC, from one event loop. See ``RecommenderClient`` for parameters and errors."""

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        values = RecommenderClientSettings()
        self.target = target or values.recommender_target
        self._timeout_s = values.recommender_timeout_ms / 1_000 if timeout_s is None else timeout_s
        self._wait_for_ready = wait_for_ready
        self._channel = (
            grpc.aio.secure_channel(self.target, credentials, options=OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(self.target, options=OPTIONS)
        )
        self._stub = RecommendationServiceStub(self._channel)

    async def recommend(self, user_id: str, k: int = 10, **fields: Unpack[RequestFields]) -> Recommendation:
        """What should this user see now? See ``RecommenderClient.recommend``."""
        request = build.request(user_id, k, **fields)
        check_recommend_request(request)
        try:
            answer = await self._stub.Recommend(
                request, timeout=self._timeout_s, wait_for_ready=self._wait_for_ready, metadata=outgoing_metadata()
            )
        except grpc.RpcError as error:
            raise explained(error, self.target, self._timeout_s) from error
        return recommendation(answer)

    async def recommend_batch(self, requests: Sequence[RecommendRequest]) -> list[Recommendation]:
        """Answers in the order of the requests. See ``RecommenderClient.recommend_batch``."""
        batch = RecommendBatchRequest(requests=requests)
        check_recommend_batch(batch)
        try:
            answer = await self._stub.RecommendBatch(
                batch, timeout=self._timeout_s, wait_for_ready=self._wait_for_ready, metadata=outgoing_metadata()
            )
        except grpc.RpcError as error:
            raise explained(error, self.target, self._timeout_s) from error
        return [recommendation(response) for response in answer.responses]

    async def close(self) -> None:
        """Close the connection; harmless when repeated."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
