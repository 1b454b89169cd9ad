"""RecommenderClient against a real gRPC server: answers, refusals, retries, deadlines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from deploy.embedded.ports import free_port
from millrace.cli.recommend import command
from millrace.client import (
    AsyncRecommenderClient,
    InvalidField,
    RecommenderClient,
    RecommenderUnavailable,
    request,
)
from millrace.events.rules import check_recommend_request
from millrace.settings import settings
from millrace.v1.impression_pb2 import AnswerStatus, CandidateSource, Fallback
from millrace.v1.recommendation_service_pb2 import (
    RecommendBatchRequest,
    RecommendBatchResponse,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
)
from millrace.v1.recommendation_service_pb2_grpc import (
    RecommendationServiceServicer,
    add_RecommendationServiceServicer_to_server,
)
from tests.processes import PATIENCE_S


@dataclass
class Service(RecommendationServiceServicer):
    """Answers k items named after the user; fails first, or hangs, where the test says so."""

    failing: list[grpc.StatusCode] = field(default_factory=list)
    calls: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def Recommend(self, request: RecommendRequest, context: grpc.ServicerContext) -> RecommendResponse:  # noqa: N802
        self.calls += 1
        if self.failing:
            context.abort(self.failing.pop(), "restarting")
        if request.user_id == "slow":
            self.released.wait(5)
        if request.user_id == "refused":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(InvalidField("user_id", "refused", "others")))
        check_recommend_request(request)
        items = [
            RecommendedItem(
                item_id=f"{request.user_id}-{n}",
                score=1 / (n + 1),
                sources=[CandidateSource.CANDIDATE_SOURCE_NEIGHBOURS],
            )
            for n in range(request.k)
        ]
        return RecommendResponse(
            request_id=request.request_id or "made",
            items=items,
            status=AnswerStatus.ANSWER_STATUS_OK,
            fallback=Fallback.FALLBACK_UNKNOWN_USER,
        )

    def RecommendBatch(  # noqa: N802
        self, request: RecommendBatchRequest, context: grpc.ServicerContext
    ) -> RecommendBatchResponse:
        return RecommendBatchResponse(responses=[self.Recommend(one, context) for one in request.requests])


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine answers late: only a test of deadlines names one."""
    monkeypatch.setenv("MILLRACE_RECOMMENDER_TIMEOUT_MS", str(round(PATIENCE_S * 1_000)))


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    served = Service()
    server = grpc.server(ThreadPoolExecutor(4))
    add_RecommendationServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield served, f"127.0.0.1:{port}"
    served.released.set()
    server.stop(grace=None).wait()


def test_answers(service: tuple[Service, str]) -> None:
    with RecommenderClient(service[1]) as recommender:
        answer = recommender.recommend("ann", k=3, request_id="r")
        assert (answer.request_id, answer.item_ids) == ("r", ("ann-0", "ann-1", "ann-2"))
        answers = recommender.recommend_batch([request("bob", 1), request("eve", 2)])
        assert [each.item_ids for each in answers] == [("bob-0",), ("eve-0", "eve-1")]


async def test_asyncio_answers(service: tuple[Service, str]) -> None:
    async with AsyncRecommenderClient(service[1]) as recommender:
        assert (await recommender.recommend("ann", k=1)).item_ids == ("ann-0",)
        answers = await recommender.recommend_batch([request("bob", 1)])
        assert [each.item_ids for each in answers] == [("bob-0",)]
        with pytest.raises(InvalidField, match="k: 0"):
            await recommender.recommend("ann", k=0)
        with pytest.raises(InvalidField, match="user_id: refused"):
            await recommender.recommend("refused")


def test_invalid_requests_are_not_sent_and_refused_ones_name_the_field(service: tuple[Service, str]) -> None:
    served, target = service
    with RecommenderClient(target) as recommender:
        with pytest.raises(InvalidField, match="k: 0"):
            recommender.recommend("ann", k=0)
        with pytest.raises(InvalidField, match=r"requests\[1\]\.user_id: missing"):
            recommender.recommend_batch([request("ann"), request("")])
        with pytest.raises(InvalidField, match="requests: 0"):
            recommender.recommend_batch([])
        assert served.calls == 0
        with pytest.raises(InvalidField) as caught:
            recommender.recommend("refused")
        assert caught.value.field == "user_id"


def test_a_restarting_service_is_asked_again(service: tuple[Service, str]) -> None:
    served, target = service
    served.failing = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
    with RecommenderClient(target) as recommender:
        assert recommender.recommend("ann", k=1).item_ids == ("ann-0",)
    assert served.calls == 3


def test_a_service_that_drains_is_not_asked() -> None:
    served, health = Service(), HealthServicer()
    server = grpc.server(ThreadPoolExecutor(4))
    add_RecommendationServiceServicer_to_server(served, server)
    add_HealthServicer_to_server(health, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    name = "millrace.v1.RecommendationService"
    health.set(name, HealthCheckResponse.NOT_SERVING)
    server.start()
    try:
        with RecommenderClient(target) as impatient, RecommenderClient(target, wait_for_ready=True) as patient:
            with pytest.raises(RecommenderUnavailable):
                impatient.recommend("ann")
            assert served.calls == 0
            health.set(name, HealthCheckResponse.SERVING)
            assert patient.recommend("ann", k=1).item_ids == ("ann-0",)
    finally:
        server.stop(grace=None).wait()


def test_a_slow_service_meets_the_deadline(service: tuple[Service, str]) -> None:
    with RecommenderClient(service[1], timeout_s=0.2) as recommender:
        with pytest.raises(RecommenderUnavailable, match=r"no answer within 0\.2 s") as caught:
            recommender.recommend("slow")
        assert caught.value.code == "DEADLINE_EXCEEDED"


def test_the_command_prints_answers(service: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_RECOMMENDER_TARGET", service[1])
    settings.cache_clear()
    plain = CliRunner().invoke(command, ["--user", "ann", "--k", "2", "--as-of", "2017-10-01"], catch_exceptions=False)
    assert plain.stdout.splitlines() == [
        "rank\titem\tscore\tsources",
        "1\tann-0\t1.0000\tneighbours",
        "2\tann-1\t0.5000\tneighbours",
    ]
    assert "request made" in plain.stderr
    assert "fallback: unknown_user" in plain.stderr
    as_json = CliRunner().invoke(command, ["--user", "ann", "--k", "1", "--json"], catch_exceptions=False)
    answer = json.loads(as_json.stdout)
    assert [item["item_id"] for item in answer["items"]] == ["ann-0"]
    assert answer["known"] is None
    settings.cache_clear()


@pytest.mark.parametrize("wait_for_ready", [False, True])
def test_an_absent_service_is_named(wait_for_ready: bool) -> None:
    target = f"127.0.0.1:{free_port()}"
    with (
        RecommenderClient(target, timeout_s=0.5, wait_for_ready=wait_for_ready) as recommender,
        pytest.raises(RecommenderUnavailable, match=target),
    ):
        recommender.recommend("ann")
