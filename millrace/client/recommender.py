"""Asks what a user should see now."""

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


class RecommenderClient:
    """Asks the recommender over gRPC. Safe to use from several threads; make one and keep it.

    Parameters
    ----------
    target
        gRPC address; by default from the settings (``MILLRACE_RECOMMENDER_TARGET``).
    timeout_s
        Longest wait for an answer, tries included; by default from the settings
        (``MILLRACE_RECOMMENDER_TIMEOUT_MS``).
    wait_for_ready
        Whether a call waits (within its timeout) for a recommender that is not there yet, instead of failing.
    credentials
        For TLS; None: an unencrypted connection.
    """

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
            grpc.secure_channel(self.target, credentials, options=OPTIONS)
            if credentials
            else grpc.insecure_channel(self.target, options=OPTIONS)
        )
        self._stub = RecommendationServiceStub(self._channel)

    def recommend(self, user_id: str, k: int = 10, **fields: Unpack[RequestFields]) -> Recommendation:
        """What should this user see now?

        ``exclude`` and ``restrict_to`` are lists of item ids, ``as_of`` the serving time of a replay, ``repeats``
        (``learned`` or ``exclude``) how items that the user knows are treated, ``explain`` asks for features.

        Raises
        ------
        InvalidField
            A value breaks the contract; nothing was sent, or the service refused it.
        RecommenderUnavailable
            No answer within the timeout, or the service failed.
        """
        request = build.request(user_id, k, **fields)
        check_recommend_request(request)
        try:
            answer = self._stub.Recommend(
                request, timeout=self._timeout_s, wait_for_ready=self._wait_for_ready, metadata=outgoing_metadata()
            )
        except grpc.RpcError as error:
            raise explained(error, self.target, self._timeout_s) from error
        return recommendation(answer)

    def recommend_batch(self, requests: Sequence[RecommendRequest]) -> list[Recommendation]:
        """Answers for up to 100 requests (made with ``millrace.client.request``), in their order.

        Raises as ``recommend``; one invalid request refuses all, and the error names its place.
        """
        batch = RecommendBatchRequest(requests=requests)
        check_recommend_batch(batch)
        try:
            answer = self._stub.RecommendBatch(
                batch, timeout=self._timeout_s, wait_for_ready=self._wait_for_ready, metadata=outgoing_metadata()
            )
        except grpc.RpcError as error:
            raise explained(error, self.target, self._timeout_s) from error
        return [recommendation(response) for response in answer.responses]

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
