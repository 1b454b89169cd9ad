"""One serving process: puts the parts together, listens, drains."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

import grpc
import numpy as np
import structlog
import uvloop
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from millrace.errors import InfrastructureError, MillraceError
from millrace.ranking.corpus import Corpus
from millrace.registry.cache import ModelCache, default_directory
from millrace.registry.checkpoints import CheckpointCache
from millrace.settings import KafkaSettings, Settings
from millrace.stream.admin import topic_ids
from millrace.stream.backoff import Backoff
from millrace.stream.http import Readiness, serve_health
from millrace.stream.shutdown import Shutdown
from millrace.stream.threads import Indispensable
from millrace.stream.tracing import TRACES
from millrace.topics import INTERACTIONS
from millrace.v1.recommendation_service_pb2 import DESCRIPTOR as RECOMMENDATION
from millrace.v1.recommendation_service_pb2 import (
    RecommendBatchRequest,
    RecommendBatchResponse,
    RecommendRequest,
    RecommendResponse,
)
from millrace.warm_up import warm_up_ranking
from services.recommender.answering import Answering
from services.recommender.champion import ChampionFollower
from services.recommender.experiments import ExperimentFollower
from services.recommender.impressions import ImpressionLog
from services.recommender.mirror import ItemMirror
from services.recommender.service import RecommendationService
from services.recommender.users import UserReader

log = structlog.stdlib.get_logger(__name__)

PROCESS = "recommender"
SERVICE = RECOMMENDATION.services_by_name["RecommendationService"].full_name

M = TypeVar("M", bound=Message)

# Threads read topics while the event loop serves. Python's default lets a busy thread keep the interpreter for
# 5 ms, longer than most answers take.
_SWITCH_INTERVAL_S = 0.0005
# Callers watch the service's health and hear of its end within a round trip; one that was answered asks no more.
_GONE_ELSEWHERE_S = 0.2


def _handlers(service: RecommendationService) -> grpc.GenericRpcHandler:
    """The methods, with requests that are no protobuf given on as None: the service refuses them by name."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Recommend": grpc.unary_unary_rpc_method_handler(
                service.Recommend,
                request_deserializer=_decoder(RecommendRequest),
                response_serializer=RecommendResponse.SerializeToString,
            ),
            "RecommendBatch": grpc.unary_unary_rpc_method_handler(
                service.RecommendBatch,
                request_deserializer=_decoder(RecommendBatchRequest),
                response_serializer=RecommendBatchResponse.SerializeToString,
            ),
        },
    )


def _decoder(message: type[M]) -> Callable[[bytes], M | None]:
    def decode(value: bytes) -> M | None:
        try:
            return message.FromString(value)
        except DecodeError:
            return None

    return decode


class TopicId:
    """The broker's id of the topic ``interactions``, asked for off the requests' path until it is known."""

    def __init__(self, kafka: KafkaSettings, backoff: Backoff) -> None:
        self._kafka = kafka
        self._backoff = backoff
        self._id = ""

    def __call__(self) -> str:
        """The id; empty while it is not known."""
        return self._id

    async def ask(self) -> None:
        """Ask until it is known."""
        while not self._id:
            try:
                ids = await asyncio.to_thread(topic_ids, self._kafka, [INTERACTIONS.name])
                self._id = ids[INTERACTIONS.name]
            except InfrastructureError as error:
                pause_s = self._backoff.next()
                log.warning("waiting for the id of a topic", problem=str(error), again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)


class RecommenderServer:
    """Everything in one serving process, from start to drain."""

    def __init__(self, settings: Settings, share_port: bool) -> None:
        kafka, stream, own = settings.kafka, settings.stream, settings.recommender
        features = settings.features
        self._own = own
        self._serving = self._draining = False
        corpus = Corpus.empty(features, own)
        self._mirror = ItemMirror(corpus, settings)
        cache = ModelCache(default_directory(own.model_name), settings.mlflow)
        checkpoints = CheckpointCache(own.model_name, settings.mlflow)
        self._champion = ChampionFollower(own.model_name, cache, checkpoints, kafka, stream)
        self._experiments = ExperimentFollower(
            own.model_name, settings.experiments.holdout, cache, checkpoints, kafka, stream
        )
        self._users = UserReader(settings.redis, own.features_timeout_ms)
        self._impressions = ImpressionLog(kafka, own.impressions_pending_max, own.linger_ms)
        self._topic_id = TopicId(kafka, Backoff(stream.backoff_max_ms / 1000))
        answering = Answering(own, features.user_half_life_ms, corpus, INTERACTIONS.name, np.random.default_rng())
        self._service = RecommendationService(
            own,
            answering,
            self._users,
            self._mirror,
            self._champion,
            self._experiments,
            self._impressions,
            self._topic_id,
        )
        # Without sharing, a port that is taken must be an error and not half of the requests.
        self._grpc = grpc.aio.server(options=[("grpc.so_reuseport", int(share_port))])
        self._grpc.add_generic_rpc_handlers((_handlers(self._service),))
        self._health = health.aio.HealthServicer()
        add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection(
            (SERVICE, HEALTH.services_by_name["Health"].full_name, reflection.SERVICE_NAME), self._grpc
        )
        self.port = self._listen()

    def _listen(self) -> int:
        address = f"{self._own.host}:{self._own.port}"
        try:
            return self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise MillraceError(f"cannot listen on {address}: {error}; is another recommender running?") from error

    @property
    def address(self) -> str:
        """``host:port`` of the gRPC service."""
        return f"{self._own.host}:{self.port}"

    def readiness(self) -> Readiness:
        """Ready from when callers are sent here, as gRPC's health service says it too: once the state of all items was
        read, until the drain. What is missing is named either way.
        """
        missing = ["draining"] if self._draining else []
        if not self._mirror.caught_up.is_set():
            missing.append("item-state is not read yet (kafka)")
        if not self._mirror.sessions_known:
            missing.append("recent sessions are not read yet (kafka)")
        if self._champion.problem:
            missing.append(f"champion of {self._own.model_name}: {self._champion.problem}")
        missing += [f"arm {arm}: {problem}" for arm, problem in self._experiments.problems.items()]
        current = self._champion.current
        return Readiness(
            self._serving,
            missing,
            {
                "grpc": self.address,
                "items": len(self._mirror.table),
                "events_read": self._mirror.events_read,
                "model_version": current.version if current else "",
                "learner_epoch": current.epoch if current else 0,
                "learner_sequence": current.sequence if current else 0,
                "experiments": [one.experiment_id for one in self._experiments.running],
                "impressions": {
                    "pending": self._impressions.pending,
                    "pending_max": self._impressions.pending_max,
                    "dropped": self._impressions.dropped,
                },
            },
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain. Raises what ended a part of the service before that."""
        await self._grpc.start()
        await self._set_health(False)
        log.info("serving", grpc=self.address)
        stopping = asyncio.create_task(stop.wait())
        parts = (self._mirror.keep_up(), self._impressions.keep_up(), self._topic_id.ask(), self._become_ready())
        under_way = {asyncio.create_task(part) for part in parts}
        try:
            while not stopping.done():
                done, _ = await asyncio.wait({stopping, *under_way}, return_when=asyncio.FIRST_COMPLETED)
                under_way -= done
                for part in done:
                    part.result()
        finally:
            for part in under_way:
                part.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await self._drain()

    async def _become_ready(self) -> None:
        await self._mirror.caught_up.wait()
        # What exists now stays: later collections look only at what requests leave behind.
        gc.collect()
        gc.freeze()
        await self._set_health(True)

    async def _drain(self) -> None:
        # An eighth of the time for callers to go elsewhere, half of it for requests under way, a quarter for
        # impressions; the rest is for closing.
        drain_s = self._own.drain_timeout_ms / 1000
        self._draining = True
        await self._set_health(False)
        # What comes in the moment of the stop is taken up by nobody, and gRPC cancels it.
        await self._service.quiet(_GONE_ELSEWHERE_S, drain_s / 8)
        await self._grpc.stop(grace=drain_s / 2)
        await self._users.close()
        await self._impressions.close(drain_s / 4)
        await self._mirror.close()
        await asyncio.to_thread(self._champion.close)
        await asyncio.to_thread(self._experiments.close)

    async def _set_health(self, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)
        self._serving = serving


async def _serve(settings: Settings, share_port: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        loop.call_soon_threadsafe(stop.set)

    with Indispensable(ask_to_stop):
        server = RecommenderServer(settings, share_port)
        with (
            TRACES.exported(settings.tracing, PROCESS),
            Shutdown(ask_to_stop, settings.recommender.drain_timeout_ms / 1000),
            serve_health(settings.observability, PROCESS, server.readiness, grpc=server.address),
        ):
            await server.run(stop)


def serve(settings: Settings, share_port: bool = False) -> None:
    """Serve in this process until SIGTERM or SIGINT.

    Parameters
    ----------
    share_port
        Whether other processes listen on the same port (SO_REUSEPORT).

    Raises
    ------
    MillraceError
        The port is taken, or a thread of the service ended by an error.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    warm_up_ranking()
    uvloop.run(_serve(settings, share_port))
