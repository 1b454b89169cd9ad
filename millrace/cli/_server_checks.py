"""Checks of ``millrace doctor``: do the servers answer, hold they what Millrace needs, and are its processes ready?"""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc

from millrace.cli._checks import Check
from millrace.errors import MillraceError
from millrace.redis_address import ClusterAddress, cluster_address
from millrace.settings import KafkaSettings, MlflowSettings, RedisSettings, Settings

ANSWER_TIMEOUT_S = 3.0
# grpc.health.v1.HealthCheckResponse{status: SERVING}, so that the client's packages are enough for the question.
SERVING = b"\x08\x01"

STACK_UP = "`millrace stack up` starts one on this machine"


def servers(settings: Settings) -> Iterator[Check]:
    """Kafka with its topics and the champion, Redis, MLflow and the recommender."""
    kafka = _kafka(settings.kafka)
    yield kafka
    if kafka.state == "ok":
        yield _topics(settings.kafka)
        yield _champion(settings)
    yield _redis(settings.redis)
    yield _mlflow(settings.mlflow)
    yield _recommender(settings.client.recommender_target)


def processes(folder: Path) -> Iterator[Check]:
    """Every process of Millrace on this machine that says in the folder where it listens."""
    if importlib.util.find_spec("deploy") is None or importlib.util.find_spec("psutil") is None:
        return
    from deploy.embedded import scrape

    scrape.forget_dead(folder)
    for process in scrape.all_announcements(folder):
        name = f"process {process.process}"
        ready, said = scrape.readiness(process.metrics)
        missing = ", ".join(map(str, said.get("missing", ()))) or "its /readyz does not answer"
        if ready:
            yield Check(name, "ok", f"pid {process.pid}, http://{process.metrics}/readyz")
        else:
            yield Check(name, "broken", f"pid {process.pid} is not ready: {missing}", "see its log")


def _kafka(kafka: KafkaSettings) -> Check:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from millrace.stream.clients import admin_config
    from millrace.stream.logs import kafka_logger

    try:
        found = AdminClient(admin_config(kafka), logger=kafka_logger()).list_topics(timeout=ANSWER_TIMEOUT_S)
    except KafkaException as error:
        return Check(
            "kafka",
            "broken",
            f"no answer from {kafka.bootstrap_servers} ({error.args[0].str()})",
            f"set KAFKA_BOOTSTRAP_SERVERS; or {STACK_UP}",
        )
    return Check("kafka", "ok", f"{kafka.bootstrap_servers}, {len(found.brokers)} broker(s)")


def _topics(kafka: KafkaSettings) -> Check:
    from millrace.stream.admin import describe_topics
    from millrace.topics import BY_NAME

    try:
        standing = describe_topics(kafka)
    except MillraceError as error:
        return Check("topics", "broken", str(error), "see the broker's log")
    missing = [topic.name for topic in standing if not topic.partitions]
    if missing:
        return Check("topics", "broken", f"not made: {', '.join(missing)}", "millrace topics apply")
    other = [
        f"{topic.name} has {topic.partitions} partitions, not {wanted}"
        for topic in standing
        if topic.name in BY_NAME and topic.partitions != (wanted := BY_NAME[topic.name].partitions(kafka))
    ]
    if other:
        return Check(
            "topics", "broken", "; ".join(other), "set KAFKA_PARTITIONS to what stands; `millrace topics apply` tells"
        )
    return Check("topics", "ok", f"{len(standing)}, with the right partitions")


def _champion(settings: Settings) -> Check:
    from millrace.registry.journal import read_ledger
    from millrace.stream.reader import TopicReader
    from millrace.topics import MODEL_EVENTS

    name = settings.recommender.model_name
    try:
        with TopicReader(settings.kafka, [MODEL_EVENTS], "beginning", settings.stream) as reader:
            champion = read_ledger(name, reader, ANSWER_TIMEOUT_S).champion
    except MillraceError as error:
        return Check("champion", "broken", str(error), "millrace topics apply")
    if not champion:
        return Check(
            "champion",
            "broken",
            f"model {name!r} has none: trending items are all that users get",
            "start workers.retrain_orchestrator (`millrace run` does); it registers the first version",
        )
    return Check("champion", "ok", f"version {champion} of {name!r}")


def _redis(redis: RedisSettings) -> Check:
    try:
        from redis import Redis
        from redis.exceptions import RedisError
    except ImportError:
        return Check("redis", "note", "not asked: the package redis is not installed", "only the workers need it")
    if (address := cluster_address(redis.url)) is not None:
        return _redis_cluster(redis, address)
    where = _without_password(redis.url)
    client = Redis.from_url(redis.url, socket_timeout=ANSWER_TIMEOUT_S, socket_connect_timeout=ANSWER_TIMEOUT_S)
    try:
        version = client.info("server")["redis_version"]
    except (RedisError, OSError) as error:
        return Check("redis", "broken", f"no answer from {where} ({error})", f"set REDIS_URL; or {STACK_UP}")
    finally:
        client.close()
    return Check("redis", "ok", f"{where}, version {version}")


def _redis_cluster(redis: RedisSettings, address: ClusterAddress) -> Check:
    from millrace.redis_cluster import Cluster

    cluster = Cluster(redis.model_copy(update={"timeout_ms": int(ANSWER_TIMEOUT_S * 1_000)}), address)
    try:
        cluster.connect()
        masters = cluster.standing()
    except MillraceError as error:
        where = ", ".join(map(str, address.nodes))
        return Check(
            "redis", "broken", f"no answer from the cluster of {where} ({error})", f"set REDIS_URL; or {STACK_UP}"
        )
    finally:
        cluster.close()
    alone = [name for name, replicas in masters.items() if not replicas]
    shown = f"a cluster of {len(masters)} masters: {', '.join(masters)}"
    if alone:
        return Check(
            "redis", "note", f"{shown}; without a replica: {', '.join(alone)}", "what dies there is not replaced"
        )
    return Check("redis", "ok", f"{shown}; each has a replica")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _mlflow(mlflow: MlflowSettings) -> Check:
    where = _without_password(mlflow.tracking_uri)
    # No proxy: the registry is a neighbour.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{mlflow.tracking_uri.rstrip('/')}/health", timeout=ANSWER_TIMEOUT_S):
            return Check("mlflow", "ok", where)
    except (urllib.error.URLError, OSError, ValueError) as error:
        return Check("mlflow", "broken", f"no answer from {where} ({error})", f"set MLFLOW_TRACKING_URI; or {STACK_UP}")


def _recommender(target: str) -> Check:
    with grpc.insecure_channel(target) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(b"", timeout=ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            problem = error.details() if hasattr(error, "details") else error
            remedy = "`millrace run` starts everything; or set MILLRACE_RECOMMENDER_TARGET"
            return Check("recommender", "broken", f"no answer from {target} ({problem})", remedy)
    if answer != SERVING:
        return Check(
            "recommender", "broken", f"{target} answers, and is not ready", "its /readyz and its log say what it awaits"
        )
    return Check("recommender", "ok", target)
