"""The gRPC service: validates, reads the user, answers, logs."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import grpc

from millrace.errors import InfrastructureError, InvalidField
from millrace.events.rules import check_recommend_batch, check_recommend_request
from millrace.features.user_state import UserState
from millrace.settings import RecommenderSettings
from millrace.stream.tracing import TRACES, sampled
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from millrace.v1.recommendation_service_pb2 import (
    RecommendBatchRequest,
    RecommendBatchResponse,
    RecommendRequest,
    RecommendResponse,
)
from services.recommender import metrics
from services.recommender.answering import Answer, Answering, Situation
from services.recommender.champion import ChampionFollower
from services.recommender.experiments import ExperimentFollower
from services.recommender.impressions import ImpressionLog
from services.recommender.mirror import ItemMirror
from services.recommender.users import UserReader

# Of the time that a caller leaves, this share may go into waiting for features: an answer without them in time is
# worth more than one with them too late.
_FEATURES_SHARE = 0.5
# That nothing comes has to be looked for.
_LOOK_EVERY_S = 0.01

Context = grpc.aio.ServicerContext[RecommendRequest, RecommendResponse]
BatchContext = grpc.aio.ServicerContext[RecommendBatchRequest, RecommendBatchResponse]
AnyContext = Context | BatchContext

# Labelled metrics are looked up once: each look-up takes a lock.
_ANSWERS = {
    (status, fallback): metrics.ANSWERS.labels(status_name, fallback_name)
    for status_name, status in AnswerStatus.items()
    for fallback_name, fallback in Fallback.items()
    if status and fallback
}
_OK = {method: metrics.REQUESTS.labels(method, "OK") for method in ("Recommend", "RecommendBatch")}
_SECONDS = {method: metrics.REQUEST_SECONDS.labels(method) for method in _OK}


class TooLate(Exception):
    """The deadline passed while the request was worked on."""


_CODES: Mapping[type[BaseException], grpc.StatusCode] = {
    InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    asyncio.CancelledError: grpc.StatusCode.CANCELLED,
}


class RecommendationService:
    """``millrace.v1.RecommendationService``.

    Parameters
    ----------
    topic_id
        Gives the broker's id of the topic ``interactions``; empty while it is not known.
    """

    def __init__(
        self,
        settings: RecommenderSettings,
        answering: Answering,
        users: UserReader,
        mirror: ItemMirror,
        champion: ChampionFollower,
        experiments: ExperimentFollower,
        impressions: ImpressionLog,
        topic_id: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._answering = answering
        self._users = users
        self._mirror = mirror
        self._champion = champion
        self._experiments = experiments
        self._impressions = impressions
        self._topic_id = topic_id
        self._under_way = 0
        self._came_at = time.monotonic()
        metrics.UNDER_WAY_MAX.set(settings.concurrent_max)
        metrics.UNDER_WAY.set_function(lambda: self._under_way)

    async def Recommend(self, request: RecommendRequest | None, context: Context) -> RecommendResponse:  # noqa: N802
        """What should this user see now? (None: the request is no protobuf.)"""
        started = time.perf_counter()
        deadline = self._deadline(context, started)
        await self._admit("Recommend", context)
        try:
            if request is None:
                raise InvalidField("request", "not protobuf", "a millrace.v1.RecommendRequest")
            check_recommend_request(request)
            with _in_trace("Recommend", context):
                response = await self._answer(request, started, deadline, alone=True)
        except BaseException as error:
            await self._fail("Recommend", context, error)
            raise
        finally:
            self._under_way -= 1
        self._count("Recommend", started)
        return response

    async def RecommendBatch(  # noqa: N802
        self, request: RecommendBatchRequest | None, context: BatchContext
    ) -> RecommendBatchResponse:
        """The same for several users; their features are read in one round trip."""
        started = time.perf_counter()
        deadline = self._deadline(context, started)
        await self._admit("RecommendBatch", context)
        try:
            if request is None:
                raise InvalidField("request", "not protobuf", "a millrace.v1.RecommendBatchRequest")
            check_recommend_batch(request)
            with _in_trace("RecommendBatch", context):
                # Started together, so that one pipeline reads all users.
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(self._answer(one, started, deadline, alone=False)) for one in request.requests
                    ]
        except BaseException as error:
            await self._fail("RecommendBatch", context, error)
            raise
        finally:
            self._under_way -= 1
        self._count("RecommendBatch", started)
        return RecommendBatchResponse(responses=[task.result() for task in tasks])

    async def quiet(self, quiet_s: float, timeout_s: float) -> None:
        """Return when no request has come for ``quiet_s`` and none is under way, or when the time is over."""
        began = time.monotonic()
        while (now := time.monotonic()) < began + timeout_s:
            if not self._under_way and now >= max(began, self._came_at) + quiet_s:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _answer(
        self, request: RecommendRequest, started: float, deadline: float, alone: bool
    ) -> RecommendResponse:
        request_id = request.request_id or secrets.token_hex(16)
        now_ms = request.as_of_ms if request.HasField("as_of_ms") else int(time.time() * 1000)
        assigned, ranks = self._experiments.assign(request.user_id, self._champion.current)
        try:
            user, features_read = await self._read(request.user_id, deadline, promptly=alone)
            if time.perf_counter() > deadline:
                raise TooLate("the deadline passed before the answer was ready")
            answer = self._answering.answer(
                request,
                request_id,
                Situation(
                    user=user,
                    features_read=features_read,
                    items_complete=self._mirror.caught_up.is_set(),
                    champion=ranks,
                    topic_id=self._topic_id(),
                    now_ms=now_ms,
                    assigned=assigned,
                ),
            )
        except BaseException:
            # Also when the caller went away (cancelled): the request came, and got no answer.
            self._impressions.send(
                self._answering.failed_impression(request, request_id, now_ms, _micros_since(started), assigned)
            )
            raise
        response = answer.response
        response.serve_micros = _micros_since(started)
        # After the answer is on its way.
        asyncio.get_running_loop().call_soon(self._log, request, answer)
        return response

    async def _read(self, user_id: str, deadline: float, promptly: bool) -> tuple[UserState | None, bool]:
        """The user's state, and whether it could be read."""
        left_s = max(0.0, deadline - time.perf_counter())
        timeout_s = min(self._settings.features_timeout_ms / 1000, left_s * _FEATURES_SHARE)
        try:
            return await self._users.read(user_id, timeout_s, promptly), True
        except InfrastructureError:
            return None, False

    def _log(self, request: RecommendRequest, answer: Answer) -> None:
        response = answer.response
        self._impressions.send(self._answering.impression(request, answer))
        metrics.CANDIDATES.observe(answer.ranked.candidates)
        _ANSWERS[response.status, response.fallback].inc()
        if answer.shuffled:
            metrics.SHUFFLED.inc()
        if answer.assigned is not None:
            shown = "served" if answer.assigned.served else "unavailable"
            metrics.ARM_ANSWERS.labels(response.experiment_id, response.arm, shown).inc()

    def _deadline(self, context: AnyContext, started: float) -> float:
        own_s = self._settings.deadline_ms / 1000
        given_s = context.time_remaining()
        return started + (own_s if given_s is None else min(given_s, own_s))

    async def _admit(self, method: str, context: AnyContext) -> None:
        """Count the request in, or refuse it before any work was done for it."""
        self._came_at = time.monotonic()
        if self._under_way >= self._settings.concurrent_max:
            metrics.REQUESTS.labels(method, "RESOURCE_EXHAUSTED").inc()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._under_way} requests are under way, and no more may be"
            )
        self._under_way += 1

    async def _fail(self, method: str, context: AnyContext, error: BaseException) -> None:
        """End the request with the status that says why; what is unexpected is left to gRPC, which logs it."""
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        code = _CODES.get(type(error), grpc.StatusCode.UNKNOWN)
        metrics.REQUESTS.labels(method, code.name).inc()
        if isinstance(error, InvalidField | TooLate):
            await context.abort(code, str(error))

    @staticmethod
    def _count(method: str, started: float) -> None:
        _OK[method].inc()
        _SECONDS[method].observe(time.perf_counter() - started)


def _in_trace(method: str, context: AnyContext) -> AbstractContextManager[object]:
    return TRACES.request(method, sampled(context.invocation_metadata() or ()))


def _micros_since(started: float) -> int:
    return int((time.perf_counter() - started) * 1_000_000)
